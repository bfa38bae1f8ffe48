"""A small W&B server on this machine's loopback: what wandb's own client sends to it is kept, and can be looked at.

It speaks what `wandb.init`, `wandb sync` and `wandb.Api().runs` use: GraphQL, the file stream, file uploads. It can be
told to fail, to wait, to lose its answers and to refuse ids that were deleted.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

PROJECT = {"id": "p1", "name": "p", "entity": {"id": "e1", "name": "me"}}
Trouble = Literal["fail", "lose", "refuse"] | float | None  # a float: seconds of delay


@dataclass
class Run:
    """What the server knows of a run."""

    name: str
    display: str = ""
    group: str = ""
    job: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    state: str = "running"
    files: dict[str, list[str]] = field(default_factory=dict)  # of the file stream: name -> lines
    exit: int | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files.get("wandb-history.jsonl", [])]

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.files.get("wandb-summary.json") or ["{}"])[-1])

    @property
    def values(self) -> dict[str, Any]:
        """The config without wandb's own part."""
        return {k: v["value"] for k, v in self.config.items() if k != "_wandb"}


class Server:
    """Use as a context manager; `url` is what WANDB_BASE_URL should be."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.deleted: set[str] = set()
        self.uploads: dict[str, bytes] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[float, str]] = []  # those that count against a rate: not uploads to storage
        self.trouble: Callable[[str, int], Trouble] = lambda operation, number: None
        self.key: str | None = None  # where set, every other is refused
        self.lock = threading.Lock()
        server = self

        class Handler(_Handler):
            owner = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def graphql(self, operation: str, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and answer of one GraphQL operation."""
        answer = getattr(self, f"on_{operation}", None)
        if answer is None:
            return 200, {"data": {}}
        with self.lock:
            return answer(v)

    def on_Viewer(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        viewer = {
            "id": "u1",
            "entity": "me",
            "username": "me",
            "email": "me@example.org",
            "admin": False,
            "flags": "{}",
        }
        viewer |= {
            "name": "me",
            "teams": {"edges": []},
            "apiKeys": {"edges": []},
            "featureFlags": [],
            "deletedAt": None,
        }
        return 200, {"data": {"viewer": viewer}}

    on_GetViewer = on_GetDefaultEntity = on_Viewer

    def on_ServerFeaturesQuery(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"data": {"serverInfo": {"features": []}}}

    def on_RunResumeStatus(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run = self.runs.get(v["name"])
        begun = run is not None and "_wandb" in run.config  # else the client takes it for a new one
        bucket = run and {
            **_identity(run),
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": 0,
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "historyTail": json.dumps(run.files.get("wandb-history.jsonl", [])[-1:]),
            "eventsTail": "[]",
            "config": json.dumps(run.config),
            "tags": run.tags,
            "notes": "",
            "wandbConfig": json.dumps({"t": run.config["_wandb"]["value"]["t"]} if begun else {}),
        }
        return 200, {
            "data": {"model": {"id": "p1", "name": "p", "entity": {"id": "e1", "name": "me"}, "bucket": bucket}}
        }

    def on_UpsertBucket(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = v.get("name") or (v.get("id") or "").removeprefix("id-")
        if name in self.deleted:
            text = f"run me/p/{name} was previously created and deleted; try a new run name"
            return 409, {"errors": [{"message": text, "path": ["upsertBucket"]}], "data": {"upsertBucket": None}}
        inserted = name not in self.runs
        run = self.runs.setdefault(name, Run(name))
        run.display = v.get("displayName") or run.display
        run.group, run.job = v.get("groupName") or run.group, v.get("jobType") or run.job
        run.tags = v.get("tags") or run.tags
        if v.get("config"):
            run.config = json.loads(v["config"])
        run.state = v.get("state") or "running"
        return 200, {"data": {"upsertBucket": {"bucket": _identity(run), "inserted": inserted}}}

    def on_CreateRunFiles(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{v['run']}/{name}"} for name in v["files"]]
        return 200, {"data": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}}

    def on_Runs(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Runs by name or group, in pages."""
        wanted = json.loads(v.get("filters") or "{}")
        runs = [
            r
            for r in self.runs.values()
            if all({"name": r.name, "group": r.group, "state": r.state}[k] == x for k, x in wanted.items())
        ]
        first = int(v.get("cursor") or 0)
        page = runs[first : first + v["perPage"]]
        edges = [{"node": self._node(run), "cursor": str(first + i + 1)} for i, run in enumerate(page)]
        info = {"endCursor": str(first + len(page)), "hasNextPage": first + len(page) < len(runs)}
        found = {
            "internalId": "1",
            "runCount": len(runs),
            "readOnly": False,
            "runs": {"edges": edges, "pageInfo": info},
        }
        return 200, {"data": {"project": found if self.runs else None}}

    def on_Run(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        run = self.runs.get(v["name"])
        return 200, {"data": {"project": {"internalId": "1", "run": run and self._node(run)}}}

    def _node(self, run: Run) -> dict[str, Any]:
        return {
            **_identity(run),
            "projectId": "1",
            "tags": run.tags,
            "state": run.state,
            "group": run.group,
            "jobType": run.job,
            "commit": None,
            "readOnly": False,
            "createdAt": "2026-01-01T00:00:00",
            "heartbeatAt": "2026-01-01T00:00:00",
            "description": None,
            "notes": None,
            "user": {"name": "me", "username": "me"},
            "summaryMetrics": json.dumps(run.summary),
            "systemMetrics": "{}",
            "historyKeys": None,
        }

    def on_UpsertView2(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.views[v["name"]] = v
        return 200, {"data": {"upsertView": {"view": {"id": f"view-{v['name']}", "name": v["name"]}, "inserted": True}}}

    def on_View(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        view = self.views[v["viewName"]]
        node = {"id": f"view-{view['name']}", "name": view["name"], "displayName": view["displayName"]}
        edges = [{"node": {**node, "spec": view["spec"], "type": "project-view"}}]
        return 200, {"data": {"project": {"allViews": {"edges": edges}}}}

    def on_ArtifactType(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"data": {"project": {"artifact": None}}}

    def on_CreateArtifact(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = v["input"]["artifactCollectionName"]
        self.artifacts[name] = v["input"]
        artifact = {"id": f"a-{name}", "state": "PENDING", "artifactSequence": {"id": "s", "latestArtifact": None}}
        return 200, {"data": {"createArtifact": {"artifact": artifact}}}

    def on_CreateArtifactManifest(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        file = {"id": "f", "uploadUrl": f"{self.url}/upload/{v['artifactID']}/manifest.json", "uploadHeaders": []}
        return 200, {"data": {"createArtifactManifest": {"artifactManifest": {"id": v["artifactID"], "file": file}}}}

    def on_UpdateArtifactManifest(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        file = {
            "id": "f",
            "uploadUrl": f"{self.url}/upload/{v['artifactManifestID']}/manifest.json",
            "uploadHeaders": [],
        }
        found = {"artifactManifest": {"id": v["artifactManifestID"], "file": file}}
        return 200, {"data": {"updateArtifactManifest": found}}

    def on_CreateArtifactFiles(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        edges = []
        for file in v["input"]["artifactFiles"]:
            place = f"{file['artifactID']}/{file['name']}"
            node = {"storagePath": place, "uploadUrl": f"{self.url}/upload/{place}", "uploadHeaders": []}
            edges.append({"node": {**node, "uploadMultipartUrls": None, "artifact": {"id": file["artifactID"]}}})
        return 200, {"data": {"createArtifactFiles": {"files": {"edges": edges}}}}

    def on_CommitArtifact(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.artifacts[v["artifactID"].removeprefix("a-")]["committed"] = True
        return 200, {"data": {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": "d"}}}}

    def on_ClientIDMapping(self, v: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        ids = [f"a-{name}" for name, a in self.artifacts.items() if a.get("clientID") == v["clientID"]]
        return 200, {"data": {"clientIDMapping": {"serverID": ids[0]} if ids else None}}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """Lines go where the client says: what is sent twice is there once."""
        run = self.runs.setdefault(name, Run(name))
        for file, part in (sent.get("files") or {}).items():
            lines = run.files.setdefault(file, [])
            offset = part.get("offset", 0)
            lines += [""] * (offset - len(lines))
            lines[offset : offset + len(part["content"])] = part["content"]
        if sent.get("complete"):
            run.exit = sent.get("exitcode", 0)
            run.state = "failed" if run.exit else "finished"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client was killed
            super().handle()

    def do_POST(self) -> None:
        server, body = self.owner, self._body()
        if "/otel/" in self.path:
            return self._answer(200, {})
        sent = json.loads(body or b"{}")
        operation = "FileStream"
        if self.path == "/graphql":
            operation = re.search(r"\b(?:query|mutation)\s+(\w+)", sent["query"])[1]  # type: ignore[index]
        with server.lock:
            server.requests.append((time.monotonic(), operation))
            trouble = server.trouble(operation, len(server.requests))
        if server.key and server.key not in _key(self.headers.get("Authorization", "")):
            return self._answer(401, {"errors": [{"message": "user is not logged in"}]})
        if isinstance(trouble, float):
            time.sleep(trouble)
        if trouble == "fail":
            return self._answer(500, {"error": "no"})
        if trouble == "refuse":
            return self._answer(400, {"error": "never"})
        if operation == "FileStream":
            with server.lock:
                server.stream(self.path.split("/")[-2], sent)
            status, answer = 200, {"exitcode": None, "limits": {}}
        else:
            status, answer = server.graphql(operation, sent.get("variables") or {})
        if trouble == "lose":
            self.close_connection = True
            return None
        return self._answer(status, answer)

    def do_PUT(self) -> None:
        body = self._body()
        with self.owner.lock:
            self.owner.uploads[self.path.removeprefix("/upload/")] = body
        self._answer(200, {})

    def do_GET(self) -> None:
        self._answer(404, {})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _identity(run: Run) -> dict[str, Any]:
    return {
        "id": f"id-{run.name}",
        "name": run.name,
        "displayName": run.display or run.name,
        "description": None,
        "config": json.dumps(run.config),
        "sweepName": None,
        "project": PROJECT,
        "historyLineCount": len(run.history),
    }


def _key(authorization: str) -> str:
    return base64.b64decode(authorization.removeprefix("Basic ")).decode(errors="replace")
