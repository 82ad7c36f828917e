"""Nobody but the run itself can talk to the workers that it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from distributed import Client

from feie.features.errors import UsageError
from feie.pipeline.engine import cluster
from feie.pipeline.extract import job as extract

# Becomes another user once all is imported, then tries each address as a stranger would.
_STRANGER = """
import asyncio, contextlib, io, json, os, sys
from distributed import Client
from distributed.comm import connect
from distributed.core import rpc
from distributed.security import Security

addresses, other_user = json.loads(sys.argv[1])

async def attempt(address, security):
    try:
        arguments = security.get_connection_args("client") if security else {}
        comm = await connect(address, timeout=2, **arguments)
        try:
            await comm.write({"op": "identity", "reply": True})
            return repr(await asyncio.wait_for(comm.read(), 3))
        finally:
            comm.abort()
    except BaseException as error:
        return None

async def main():
    told = {}
    for address in addresses:
        where = address.split("://")[1]
        told[address] = [
            await attempt("tcp://" + where, None),
            await attempt("tls://" + where, Security.temporary()),
        ]
    print(json.dumps(told))

if other_user:
    with contextlib.redirect_stdout(io.StringIO()):
        asyncio.run(main())  # loads what the other user may not read
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
asyncio.run(main())
"""


@pytest.fixture
def running():
    started = cluster._start_cluster(2)
    client = Client(started, set_as_default=False)
    client.wait_for_workers(2, timeout=60)
    yield started
    client.close()
    started.close()


def _stranger(addresses: list[str], other_user: bool) -> dict[str, list[str | None]]:
    done = subprocess.run(
        [sys.executable, "-c", _STRANGER, json.dumps([addresses, other_user])],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def _addresses(running) -> list[str]:
    states = running.scheduler.workers.values()
    found = [running.scheduler_address, *(s.address for s in states), *(s.nanny for s in states)]
    assert len(set(found)) == 5
    return found


@pytest.mark.parametrize("other_user", [False, True])
def test_scheduler_workers_and_nannies_refuse_strangers(running, other_user):
    if other_user and os.getuid() != 0:
        pytest.skip("only root can try it as another user")
    told = _stranger(_addresses(running), other_user)
    assert list(told.values()) == [[None, None]] * 5


def test_the_stranger_gets_in_where_nothing_is_protected():
    """So that the test above can fail."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address=None
    ) as unprotected:
        told = _stranger([unprotected.scheduler_address], False)
    [[plain, encrypted]] = told.values()
    assert "Scheduler" in plain
    assert encrypted is None


def _listening(pids: list[int]) -> list[tuple[str, int]]:
    found = (c.laddr for pid in pids for c in psutil.Process(pid).net_connections("inet") if
             c.status == psutil.CONN_LISTEN)  # fmt: skip
    return [(address.ip, address.port) for address in found]


def test_everything_listens_on_loopback_and_its_web_pages_are_empty(running):
    import http.client

    me = psutil.Process()
    pids = [me.pid, *(child.pid for child in me.children(recursive=True))]
    listening = _listening(pids)
    assert len(listening) >= 7
    assert {ip for ip, _ in listening} <= {"127.0.0.1", "::1"}
    answered = []
    for ip, port in listening:
        for page in ("/info/main/workers.html", "/json/counts.json", "/health", "/metrics", "/"):
            connection = http.client.HTTPConnection(ip, port, timeout=2)
            try:
                connection.request("GET", page)
                answered.append((connection.getresponse().status, page))
            except (OSError, http.client.HTTPException):
                pass  # not a web server
            finally:
                connection.close()
    assert answered  # the web servers that dask always starts
    assert {status for status, _ in answered} == {404}


def test_the_dashboard_is_asked_for_by_name(untrained, tmp_path, clip, monkeypatch):
    clip(tmp_path / "v" / "a.mp4", 4)
    with pytest.raises(ValueError, match="--dashboard shows the workers of --workers"):
        extract.ExtractOptions(videos=tmp_path, dashboard=True)
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    options = extract.ExtractOptions(
        videos=tmp_path / "v", store=tmp_path / "s.zarr", extractor=str(untrained),
        workers=1, dashboard=True,
    )  # fmt: skip
    with pytest.raises(UsageError, match="pip install bokeh"):
        extract.run(options)


def _certificate(folder: Path) -> dict[str, str]:
    """dask's own settings for TLS, as environment variables, with a new certificate."""
    from distributed.security import Security

    made = Security.temporary()
    (folder / "cert.pem").write_text(made.tls_ca_file)
    (folder / "key.pem").write_text(made.tls_client_key)
    named = {"REQUIRE_ENCRYPTION": "True", "TLS__CA_FILE": str(folder / "cert.pem")}
    for role in ("CLIENT", "SCHEDULER", "WORKER"):
        named |= {f"TLS__{role}__CERT": str(folder / "cert.pem")}
        named |= {f"TLS__{role}__KEY": str(folder / "key.pem")}
    return {f"DASK_DISTRIBUTED__COMM__{name}": value for name, value in named.items()}


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_scheduler_elsewhere_with_and_without_tls(encrypted, untrained, tmp_path, clip):
    clip(tmp_path / "v" / "a.mp4", 4)
    environment = dict(os.environ) | (_certificate(tmp_path) if encrypted else {})
    file = tmp_path / "scheduler.json"
    common = [sys.executable, "-m"]
    commands = [
        [*common, "distributed.cli.dask_scheduler", "--scheduler-file", file, "--no-dashboard",
         "--host", "127.0.0.1", "--port", "0", *(["--protocol", "tls"] if encrypted else [])],
        [*common, "distributed.cli.dask_worker", "--scheduler-file", file, "--no-dashboard",
         "--nthreads", "1", "--no-nanny", "--local-directory", tmp_path],
    ]  # fmt: skip
    processes = [
        subprocess.Popen(list(map(str, command)), env=environment, cwd="/",
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        assert address.startswith("tls://" if encrypted else "tcp://")
        extract_command = [
            *common, "feie.cli", "extract", "--videos", tmp_path / "v", "--extractor", untrained,
            "--scheduler", address, "--store", tmp_path / "s.zarr",
        ]  # fmt: skip

        def run(env):
            return subprocess.run(list(map(str, extract_command)), env=env, capture_output=True,
                                  text=True, timeout=200)  # fmt: skip

        done = run(environment)
        assert done.returncode == 0, done.stderr
        assert ("plain tcp://" in done.stderr) is not encrypted
        if encrypted:
            refused = run(dict(os.environ))
            assert refused.returncode == 2
            assert "wants TLS: set dask's distributed.comm.tls.ca-file" in refused.stderr
            assert "Traceback" not in refused.stderr
    finally:
        for process in processes:
            process.kill()
            process.wait()
