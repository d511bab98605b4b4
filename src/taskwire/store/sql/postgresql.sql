-- The statements of the update path on PostgreSQL. Rows travel as one JSON text, as on SQLite.

-- name: task_revisions
-- Rows are locked in the order of their ids, so that two nodes writing the same tasks cannot deadlock.
WITH locked AS (
    SELECT id, revision FROM tasks
    WHERE id IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb)))
    ORDER BY id FOR UPDATE
)
SELECT CAST(coalesce(json_agg(json_build_array(id, revision)), '[]') AS text) FROM locked

-- name: task_load
SELECT CAST(coalesce(json_agg(json_build_array(
    id, owner_id, team_id, provider, title, description, prompt, options, metadata, created_at,
    queued_at, updated_at, revision, attempt, status, progress, current_step, total_steps, message, eta,
    started_at, finished_at, result, error
)), '[]') AS text) FROM tasks
WHERE id IN (SELECT jsonb_array_elements_text(CAST(:ids AS jsonb)))

-- name: task_update
UPDATE tasks SET
    queued_at = CAST(item ->> 1 AS bigint),
    updated_at = CAST(item ->> 2 AS bigint),
    revision = CAST(item ->> 3 AS bigint),
    attempt = CAST(item ->> 4 AS integer),
    status = item ->> 5,
    progress = CAST(item ->> 6 AS double precision),
    current_step = CAST(item ->> 7 AS bigint),
    total_steps = CAST(item ->> 8 AS bigint),
    message = item ->> 9,
    eta = CAST(item ->> 10 AS double precision),
    started_at = CAST(item ->> 11 AS bigint),
    finished_at = CAST(item ->> 12 AS bigint),
    result = NULLIF(item -> 13, CAST('null' AS jsonb)),
    error = NULLIF(item -> 14, CAST('null' AS jsonb))
FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS item
WHERE tasks.id = item ->> 0

-- name: task_progress
UPDATE tasks SET
    updated_at = CAST(item ->> 1 AS bigint),
    revision = CAST(item ->> 2 AS bigint),
    progress = CAST(item ->> 3 AS double precision),
    current_step = CAST(item ->> 4 AS bigint),
    total_steps = CAST(item ->> 5 AS bigint),
    message = item ->> 6,
    eta = CAST(item ->> 7 AS double precision)
FROM jsonb_array_elements(CAST(:rows AS jsonb)) AS item
WHERE tasks.id = item ->> 0
