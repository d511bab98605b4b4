"""The tables, as SQLAlchemy Core knows them. Times are integer milliseconds since 1970 UTC."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Id = String(160)
Serial = BigInteger().with_variant(Integer, "sqlite")

tasks = Table(
    "tasks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner_id", Id, nullable=False),
    Column("team_id", Id),
    Column("provider", String(64), nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("options", Json, nullable=False),
    Column("metadata", Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("queued_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("progress", Double, nullable=False),
    Column("current_step", BigInteger),
    Column("total_steps", BigInteger),
    Column("message", Text, nullable=False),
    Column("eta", Double),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("result", Json),
    Column("error", Json),
    Column("lease_owner", String(64)),
    Column("lease_until", BigInteger),
    Index("ix_tasks_owner", "owner_id", "id"),
    Index("ix_tasks_team", "team_id", "id"),
    Index("ix_tasks_work", "provider", "status", "id"),
    Index("ix_tasks_finished", "finished_at"),
)
"""One row per task. Narrow updates: the columns of ``TaskState`` are rewritten at every commit, the others never."""

events = Table(
    "events",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("topic", String(192), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("type", String(32), nullable=False),
    Column("actor", String(192), nullable=False),
    Column("data", Json, nullable=False),
    Index("ix_events_topic", "topic", "seq"),
)
"""Append-only log of state changes; ``topic`` is the channel of the changed thing, e.g. ``task:video_…``."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("scope", Id, primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("entity_id", Id, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_idempotency_keys_created_at", "created_at"),
)

users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("username", String(128), nullable=False),
    Column("username_key", String(384), nullable=False, unique=True),
    Column("password_hash", Text),
    Column("is_admin", Boolean, nullable=False),
    Column("disabled_at", BigInteger),
    Column("token_epoch", Integer, nullable=False),
    Column("issuer", String(255)),
    Column("subject", String(255)),
    Column("created_at", BigInteger, nullable=False),
    Index("uq_users_issuer_subject", "issuer", "subject", unique=True),
)
"""People. ``token_epoch`` is written into every JWT of ours; raising it makes the earlier ones invalid.

``username_key`` is the name with letter case folded away: ``Alice`` and ``alice`` cannot both exist.
"""

teams = Table(
    "teams",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
)

team_members = Table(
    "team_members",
    metadata,
    Column("team_id", Id, ForeignKey("teams.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_team_members_user_id", "user_id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(128), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("scopes", Json, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
    Index("ix_api_keys_user_id", "user_id"),
)
"""Keys of producers. ``hash`` is SHA-256 of the secret part, which has 256 random bits and so needs no slow hash."""

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("family", Id, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Index("ix_refresh_tokens_family", "family"),
    Index("ix_refresh_tokens_user_id", "user_id"),
    Index("ix_refresh_tokens_expires_at", "expires_at"),
)
"""Each may be used once; a second use of one revokes its whole ``family`` (a stolen copy is in play).

``epoch`` is the user's ``token_epoch`` at the login; once that is raised, the token counts no more.
"""
