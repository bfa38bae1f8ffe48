"""wandb's own client, one run open at a time: a run is opened, sent what its server lacks, closed, and asked for.

The server tells at every opening how far it has the run, so nothing is sent twice and nothing left out, whoever died
meanwhile. Closing does not tell whether all was accepted, so the server is asked for that too.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from proxytrain.config.schema import Wandb
from proxytrain.errors import RequestError
from proxytrain.files.atomic import remove

REQUESTS = 8  # of a visit: resume status, two of the run's record, its files, two of the stream, two to look it up
TIMEOUT_SECONDS = 60.0  # after which a server counts as gone
TRIED_IDS = 9  # names that are tried for a run whose id the server refuses
Row = tuple[int, dict[str, Any]]


class Gone(Exception):
    """The server does not have what was sent to it."""


def mode(track: Wandb) -> str:
    """online, offline or disabled.

    Raises
    ------
    RequestError
        If online was asked for, and wandb knows no key, or a broken one.
    """
    asked = track.mode or os.environ.get("WANDB_MODE")
    asked = {"dryrun": "offline", "run": "online"}.get(asked or "", asked)
    if asked in ("offline", "disabled"):
        return asked
    known = key_known()
    if not known and asked:
        key = "track.mode" if track.mode else "WANDB_MODE"
        raise RequestError(
            f"{key}=online: wandb knows no key; set WANDB_API_KEY, or run `wandb login`, "
            f"or set {key}=offline and sync later"
        )
    return "online" if known else "offline"


def key_known() -> bool:
    """Whether wandb finds credentials for its server; asks neither that nor a person."""
    import wandb
    from wandb.sdk.lib.wbauth import authenticate_session

    with contextlib.redirect_stderr(io.StringIO()):
        try:
            host = wandb.setup().settings.base_url
            return bool(authenticate_session(host=host, source="proxytrain", prompt=False, update_session=False))
        except wandb.errors.Error as error:
            raise RequestError(f"track=wandb: {error}") from None
        finally:
            wandb.teardown()


def resolved(track: Wandb) -> Wandb:
    """What is null as the environment says."""
    entity = track.entity or os.environ.get("WANDB_ENTITY") or None
    return replace(track, entity=entity, project=track.project or os.environ.get("WANDB_PROJECT") or "proxytrain")


class Client:
    """Sends runs online; offline it writes each, once it is whole, as a folder that `wandb sync` takes."""

    def __init__(self, track: Wandb, online: bool, scratch: Path, pieces: Path):
        self.track, self.online, self.scratch, self.pieces = track, online, scratch, pieces
        os.environ.pop("WANDB_SWEEP_ID", None)  # of an agent under which we may run
        os.environ["WANDB_DATA_DIR"] = str(scratch if online else pieces)  # copies of what artifacts hold
        self._api: Any = None

    def send(self, id: str, rows: list[Row], *, ended: int | None, summary: dict[str, Any], **about: Any) -> str:
        """Bring one run to where `rows` end; the id that it has there (another one where the server refuses `id`).

        Parameters
        ----------
        rows : (step, values), from the first step on
        ended : exit code; None: the run goes on, and stays "running"
        about : name, group, job_type, tags, config

        Raises
        ------
        Exception
            Whatever wandb raises, or `Gone`; sending again goes on from what the server has.
        """

        def fill(run: Any) -> int:
            first = run.step
            for axis in ("tokens", "flops"):  # of the summary these are the result's
                run.define_metric(axis, summary="none")
            run.define_metric("*", step_metric="tokens")
            for step, values in rows:
                if step >= first:
                    run.log(values, step=step)
            run.summary.update(summary)
            return len(rows)

        return self._named(id, fill, ended, about)

    def conclude(
        self,
        id: str,
        table: dict[str, list[Any]],
        summary: dict[str, Any],
        pictures: list[Path],
        fit: Path,
        **about: Any,
    ) -> str:
        """Send what a whole sweep says: a table of its runs, numbers, pictures, and the fit as an artifact."""
        import wandb

        def fill(run: Any) -> int:
            rows = wandb.Table(columns=list(table), data=[list(row) for row in zip(*table.values())])
            run.log({"runs": rows, **{f"figures/{p.stem}": wandb.Image(str(p)) for p in pictures}})
            run.summary.update(summary)
            if fit.exists():
                artifact = wandb.Artifact(f"{about['group']}-fit", type="fit", metadata=summary)
                artifact.add_file(str(fit))
                run.log_artifact(artifact)
            return 1

        return self._named(id, fill, 0, about)

    def _named(self, id: str, fill: Callable[[Any], int], ended: int | None, about: dict[str, Any]) -> str:
        for name in [id, *(f"{id}-{n}" for n in range(2, TRIED_IDS + 1))]:
            try:
                self._send(name, fill, ended, about)
                return name
            except Exception as error:
                self.close()  # or its process would go on trying behind our back
                if "previously created and deleted" not in str(error):
                    raise
        raise Gone(f"{id}: W&B refuses this id and those up to {id}-{TRIED_IDS}: all were deleted there")

    def _send(self, id: str, fill: Callable[[Any], int], ended: int | None, about: dict[str, Any]) -> None:
        import wandb

        run = wandb.init(
            id=id,
            entity=self.track.entity,
            project=self.track.project,
            dir=str(self.scratch),
            mode="online" if self.online else "offline",
            resume="allow" if self.online else None,
            reinit="create_new",
            settings=_settings(keep=not self.online, running=ended is None),
            **about,
        )
        try:
            lines = fill(run)
        except BaseException:
            run.finish(exit_code=1)
            raise
        run.finish(exit_code=ended or 0)
        if not self.online:
            self._keep(id)
        elif ended is not None and not self.has(id, run.entity, lines):
            raise Gone(f"{id}: W&B did not take all of it")

    def has(self, id: str, entity: str, lines: int) -> bool:
        """Whether the server has a run as ended, with all its lines."""
        import wandb

        self._api = self._api or wandb.Api(timeout=int(TIMEOUT_SECONDS))
        found = self._api.runs(f"{entity}/{self.track.project}", filters={"name": id}, per_page=1)
        return any(r.id == id and r.state != "running" and r.historyLineCount >= lines for r in found)

    def _keep(self, id: str) -> None:
        """Move a run's folder, now whole, to where `wandb sync` finds it, in place of an older one."""
        (fresh,) = self.scratch.glob(f"wandb/offline-run-*-{id}")
        for old in self.pieces.glob(f"offline-run-*-{id}"):
            remove(old)
        fresh.rename(self.pieces / fresh.name)
        shutil.rmtree(self.scratch / "wandb", ignore_errors=True)

    def close(self) -> None:
        """End wandb's own process, with whatever it was doing."""
        import wandb

        self._api = None
        wandb.teardown(exit_code=1)


def _settings(keep: bool, running: bool) -> Any:
    """Nothing of this machine is looked at, tries are few and short: we try again ourselves."""
    import wandb

    return wandb.Settings(
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_disable_stats=True,
        x_save_requirements=False,
        x_skip_transaction_log=not keep,
        x_update_finish_state=not running,
        x_file_stream_retry_max=3,
        x_file_transfer_retry_max=3,
        x_graphql_retry_max=1,
        init_timeout=TIMEOUT_SECONDS,
        finish_timeout=TIMEOUT_SECONDS,
        finish_timeout_raises=True,
        allow_val_change=True,
        stop_fn=lambda: None,
    )
