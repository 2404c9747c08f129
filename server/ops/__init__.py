"""Health, models, metrics, the OpenAPI document and the playground."""
