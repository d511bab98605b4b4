-- The statements of the update path on SQLite. Each takes and gives its rows as one JSON text: a single step of the
-- database does the whole batch, so that the thread gives up and takes back the interpreter lock once, not per row.

-- name: task_revisions
SELECT json_group_array(json_array(id, revision)) FROM tasks WHERE id IN (SELECT value FROM json_each(:ids))

-- name: task_load
SELECT json_group_array(json_array(
    id, owner_id, team_id, provider, title, description, prompt, json(options), json(metadata), created_at,
    queued_at, updated_at, revision, attempt, status, progress, current_step, total_steps, message, eta,
    started_at, finished_at, json(result), json(error)
)) FROM tasks WHERE id IN (SELECT value FROM json_each(:ids))

-- name: task_update
UPDATE tasks SET
    queued_at = json_extract(row.value, '$[1]'),
    updated_at = json_extract(row.value, '$[2]'),
    revision = json_extract(row.value, '$[3]'),
    attempt = json_extract(row.value, '$[4]'),
    status = json_extract(row.value, '$[5]'),
    progress = json_extract(row.value, '$[6]'),
    current_step = json_extract(row.value, '$[7]'),
    total_steps = json_extract(row.value, '$[8]'),
    message = json_extract(row.value, '$[9]'),
    eta = json_extract(row.value, '$[10]'),
    started_at = json_extract(row.value, '$[11]'),
    finished_at = json_extract(row.value, '$[12]'),
    result = json_extract(row.value, '$[13]'),
    error = json_extract(row.value, '$[14]')
FROM json_each(:rows) AS row
WHERE tasks.id = json_extract(row.value, '$[0]')

-- name: task_progress
-- The columns that progress alone changes: nearly every commit under load is nothing else.
UPDATE tasks SET
    updated_at = json_extract(row.value, '$[1]'),
    revision = json_extract(row.value, '$[2]'),
    progress = json_extract(row.value, '$[3]'),
    current_step = json_extract(row.value, '$[4]'),
    total_steps = json_extract(row.value, '$[5]'),
    message = json_extract(row.value, '$[6]'),
    eta = json_extract(row.value, '$[7]')
FROM json_each(:rows) AS row
WHERE tasks.id = json_extract(row.value, '$[0]')
