"""One SQLAlchemy Core store for SQLite and PostgreSQL: tables, migrations, and the group-commit writer."""
