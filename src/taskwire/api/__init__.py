"""REST: thin FastAPI routes over the services. JSON is camelCase, times ISO 8601 UTC with milliseconds."""
