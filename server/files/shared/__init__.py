"""Uploaded files that several servers share: contents in an object store, records and quotas in Redis or Valkey."""
