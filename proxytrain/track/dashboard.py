"""A saved view of a W&B project that shows one mirrored sweep: `track dashboard`. Needs wandb-workspaces, an extra."""

from __future__ import annotations

from typing import Any

from proxytrain.config.schema import Wandb
from proxytrain.errors import RequestError
from proxytrain.track.client import TIMEOUT_SECONDS, key_known, resolved


def save(track: Wandb, name: str, pictures: list[str], url: str | None) -> str:
    """Write the view of a sweep, in place of the one at `url`; its address.

    Parameters
    ----------
    pictures : names of the summary's figures

    Raises
    ------
    RequestError
        Without wandb-workspaces, without a key, or where W&B refuses.
    """
    try:
        from wandb_workspaces import workspaces
    except ImportError:
        raise RequestError("track dashboard: needs wandb-workspaces: pip install 'proxytrain[dashboard]'") from None
    import wandb

    if not key_known():
        raise RequestError("track dashboard: wandb knows no key; set WANDB_API_KEY, or run `wandb login`")
    track = resolved(track)
    try:
        entity = str(track.entity or wandb.Api(timeout=int(TIMEOUT_SECONDS)).default_entity)
        view = workspaces.Workspace(entity=entity, project=str(track.project), name=f"sweep {name}")
        if url:
            view = workspaces.Workspace.from_url(url)
        view.sections = _sections(pictures)
        view.runset_settings = workspaces.RunsetSettings(filters=[workspaces.Metric("Group") == name])
        view.save()
        return str(view.url)
    except Exception as error:  # whatever wandb raises: no network, no such project, no rights
        raise RequestError(f"track dashboard: {' '.join(str(error).split())[:300]}") from None


def _sections(pictures: list[str]) -> list[Any]:
    """Loss against tokens by width and schedule, against compute, against the rate; the prediction."""
    from wandb_workspaces.reports import v2 as panels
    from wandb_workspaces.workspaces import Section

    def lines(title: str, y: str, by: str, x: str = "tokens", log_y: bool = False) -> Any:
        return panels.LinePlot(title=title, x=x, y=[y], groupby=panels.Config(by), log_x=True, log_y=log_y)

    final, compute = panels.SummaryMetric("final_loss"), panels.SummaryMetric("flops")
    rate, width = panels.Config("lr"), panels.Config("model.width")
    prediction = [
        panels.ScalarChart(title=f"Predicted loss, {what}", metric=f"prediction.{key}")
        for what, key in (("interval from", "low"), ("one run", "loss"), ("interval to", "high"))
    ]
    figures = [panels.MediaBrowser(media_keys=[f"figures/{p}" for p in pictures])] if pictures else []
    return [
        Section(
            name="Loss against tokens",
            is_open=True,
            panels=[
                lines("Validation loss by width", "val/loss", "model.width"),
                lines("Training loss by width", "train/loss", "model.width"),
                lines("Validation loss by schedule", "val/loss", "schedule.name"),
                lines("Learning rate by schedule", "train/lr", "schedule.name"),
            ],
        ),
        Section(
            name="Loss against compute",
            is_open=True,
            panels=[
                lines("Validation loss by width", "val/loss", "model.width", x="flops", log_y=True),
                panels.ScatterPlot(title="Final losses", x=compute, y=final, log_x=True, log_y=True),
            ],
        ),
        Section(
            name="Sensitivity to the learning rate",
            is_open=True,
            panels=[panels.ScatterPlot(title="Final losses", x=rate, y=final, z=width, log_x=True)],
        ),
        Section(name="Prediction", is_open=True, panels=[*prediction, *figures]),
    ]
