"""The provider ``external``: no provider at all. Some producer does the work and reports over the API."""

from collections.abc import Mapping
from typing import Any

from taskwire.services.ports import ProviderConfig


class External:
    """Takes any options, since they are the producer's business."""

    name = "external"
    reportable = True

    def check_options(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        return options


def create(config: ProviderConfig) -> External:
    return External()
