"""Peer: nginx with the nchan module, from the system or unpacked from the distribution's packages."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from bench.load.http import request_bytes
from bench.peers.base import CACHE, CHANNEL, Command, Peer, message_of

UNPACKED: Final = CACHE / "nginx"
MODULES: Final = (Path("/usr/lib/nginx/modules"), UNPACKED / "usr/lib/nginx/modules")
MODULE: Final = "ngx_nchan_module.so"
PACKAGES: Final = ("nginx", "libnginx-mod-nchan")

STATE: Final = Path("/var/lib/nginx")
PRIVATE_STATE: Final = 'mount -t tmpfs none /var/lib && mkdir /var/lib/nginx && exec "$@"'
"""The module makes a folder in ``STATE`` whatever its configuration says; this keeps it in a private mount."""

CONFIG: Final = """
load_module {module};
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
worker_rlimit_nofile {files};
{user}
events {{ worker_connections {files}; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /healthz {{ return 200 ok; }}
    location ~ ^/publish/(\\w+)$ {{ nchan_publisher; nchan_channel_id $1; }}
    location ~ ^/subscribe/(\\w+)$ {{
      nchan_subscriber websocket; nchan_channel_id $1; nchan_subscriber_first_message newest;
    }}
  }}
}}
"""


class Nchan:
    """A client of an nchan channel: subscribed by its URL, nothing to say."""

    __slots__ = ()

    def path(self) -> str:
        return f"/subscribe/{CHANNEL}"

    def opening(self) -> tuple[Sequence[str], int]:
        return (), -1

    def answer(self, stage: int, message: bytes) -> tuple[Sequence[str], int]:
        return (), stage

    def is_control(self, message: bytes) -> bool:
        return False


def _nginx() -> str:
    own = UNPACKED / "usr/sbin/nginx"
    return (
        str(own)
        if own.exists()
        else shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""
    )


def _module() -> Path | None:
    return next((folder / MODULE for folder in MODULES if (folder / MODULE).exists()), None)


@cache
def install() -> str:
    """Use the system's nginx with nchan, else unpack the packages without installing them. Returns what went wrong."""
    if _nginx() and _module():
        return ""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return "nginx with the nchan module is not installed, and there is no apt-get to get it with"
    UNPACKED.mkdir(parents=True, exist_ok=True)
    run = subprocess.run(["apt-get", "download", *PACKAGES], cwd=UNPACKED, capture_output=True, text=True)
    if run.returncode:
        return f"apt has no {' and '.join(PACKAGES)} ({run.stderr.strip()[-200:]})"
    for package in UNPACKED.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(UNPACKED)], check=True)
    probe = subprocess.run([*_private(), _nginx(), "-v"], capture_output=True, text=True)
    return "" if probe.returncode == 0 else f"the unpacked nginx does not run: {probe.stderr.strip()[-200:]}"


def _private() -> list[str]:
    """What to put before the command so that nginx finds its state folder; nothing if the system has it."""
    if STATE.is_dir():
        return []
    namespaces = ["--mount"] if os.getuid() == 0 else ["--user", "--map-root-user", "--mount"]
    return ["unshare", *namespaces, "sh", "-c", PRIVATE_STATE, "sh"]


class NginxNchan(Peer):
    key = "nchan"
    label = "nginx + nchan"

    @classmethod
    def missing(cls) -> str:
        return install()

    @classmethod
    def version(cls) -> str:
        nginx = (
            subprocess.run([_nginx(), "-v"], capture_output=True, text=True).stderr.strip().rpartition("/")[2]
        )
        if files := list(UNPACKED.glob("libnginx-mod-nchan_*.deb")):
            nchan = files[0].name.split("_")[1].replace("%3a", ":")
        else:
            query = ["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"]
            nchan = subprocess.run(query, capture_output=True, text=True).stdout or "unknown"
        return f"nginx {nginx}, nchan {re.sub(r'^[0-9]+:', '', nchan)}"

    def command(self, port: int, folder: Path) -> Command:
        config = folder / "nginx.conf"
        user = "user root;" if os.getuid() == 0 else ""  # else the folder of this run is closed to the worker
        config.write_text(CONFIG.format(module=_module(), folder=folder, port=port, files=16_384, user=user))
        return Command(
            [*_private(), _nginx(), "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
        )

    def conversation(self, index: int) -> Nchan:
        return Nchan()

    def publication(self, number: int) -> bytes:
        return request_bytes("POST", f"/publish/{CHANNEL}", message_of(number, self.message_bytes))
