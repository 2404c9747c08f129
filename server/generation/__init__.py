"""The core every generating endpoint uses: request, sampling, output and the model's life."""
