"""``python -m taskwire`` is the command ``taskwire``."""

from taskwire.cli.main import app

if __name__ == "__main__":
    app(prog_name="taskwire")
