"""The history of the tables, as Alembic revisions. They only go forward; to go back, restore a backup."""
