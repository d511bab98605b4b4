"""Python client: REST calls, and following tasks live to their end. Knows only ``core``."""
