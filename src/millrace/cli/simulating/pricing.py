"""What prices the steps of each group of a fleet, how good those prices are, and where they come from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from millrace.core.cost import CostModel, Linear, Profiled, Roofline
from millrace.core.cost.energy import UNKNOWN, Metered, energy_source
from millrace.core.cost.operators import graph_sizes
from millrace.core.cost.roofline import HOST_S
from millrace.core.fleet_spec import FleetGroup
from millrace.core.profile import Setup
from millrace.data import calibrations, open_calibration
from millrace.data.aiconfigurator import open_operators
from millrace.data.profiles import open_description, open_fitted, open_layers, open_serving, says_profile

Quality = Literal["measured grid", "fitted", "measured layers", "calibrated", "uncalibrated roofline"]

# Not a path, but the name of a package whose tables are taken if it is installed.
AICONFIGURATOR = Path("aiconfigurator")
# vLLM captures graphs for up to twice the sequences it may run, but for no more tokens than this.
_LARGEST_GRAPH_TOKENS = 512
_PROFILE = re.compile(r"(?:([^=/@]+)(?:@([^=/@]+))?=)?(.+)")


class Price(Struct, frozen=True, kw_only=True):
    """A cost model, its quality in a word or two, how far off it is expected to be, and its source."""

    cost: Linear | Profiled | Roofline
    quality: Quality
    source: str

    @property
    def expected_error(self) -> str:
        """How far off its prices are known to be, in words."""
        return self.cost.expected_error


class Profile(Struct, frozen=True):
    """A file or folder with prices, for all groups of the fleet or those of a model, on a device."""

    path: Path
    model: str | None = None
    device: str | None = None

    def fits(self, group: FleetGroup) -> bool:
        """Whether it is meant for this group."""
        return self.model in (None, group.model.name) and self.device in (None, group.device.name)


def parse_profiles(texts: Sequence[str], groups: Sequence[FleetGroup]) -> list[Profile]:
    """Read `PATH`, `MODEL=PATH` or `MODEL@DEVICE=PATH`, most particular first.

    Raises ValueError for a profile that fits no group, and for a path alone if the fleet is of several kinds.
    """
    found = [_profile(text) for text in texts]
    kinds = list(dict.fromkeys(f"{group.model.name}@{group.device.name}" for group in groups))
    for profile in found:
        if not any(map(profile.fits, groups)):
            meant = f"{profile.model}@{profile.device}" if profile.device else profile.model
            raise ValueError(f"--profile: nothing in the fleet is {meant}; there is {', '.join(kinds)}")
        if profile.model is None and len(kinds) > 1:
            raise ValueError(
                f"--profile {profile.path}: the fleet has {', '.join(kinds)}; say whose prices these are, "
                f"like --profile {kinds[0]}={profile.path}"
            )
    return sorted(found, key=lambda profile: (profile.model is None, profile.device is None))


def price_of(group: FleetGroup, *, calibration: str | None, profiles: Sequence[Profile]) -> Price:
    """Return the first profile that fits, or the calibration, or one that ships, or the data sheet."""
    profile = next((profile for profile in profiles if profile.fits(group)), None)
    if group.overlap:
        if profile or calibration is not None:
            raise ValueError("overlap is priced from data sheets: leave out --profile and --calibration")
        return Price(
            cost=group.roofline, quality="uncalibrated roofline", source=f"data sheets, {group.overlap}"
        )
    if profile:
        return _measured(profile.path, group)
    shipped = f"{group.model.name}-{group.device.name}"
    if calibration is not None or shipped in calibrations():
        return _calibrated(calibration or shipped)
    return Price(cost=group.roofline, quality="uncalibrated roofline", source="data sheets")


def powered(cost: CostModel, sheet: Roofline) -> CostModel:
    """Return what also knows its power, by the data sheet if it knows none itself."""
    return Metered(cost, sheet) if energy_source(cost) == UNKNOWN else cost


def _profile(text: str) -> Profile:
    found = _PROFILE.fullmatch(text)
    if not found:
        raise ValueError("--profile is empty; name a file or a folder")
    model, device, path = found.groups()
    return Profile(Path(path), model, device)


def _measured(path: Path, group: FleetGroup) -> Price:
    """What a path is, is found out from what lies there."""
    setup = Setup(
        model=group.model,
        device=group.device,
        tensor_parallel=group.tensor_parallel,
        data_parallel=group.expert_parallel,
        expert_parallel=group.expert_parallel > 1,
        graph_tokens=graph_sizes(min(2 * group.limits.sequences, _LARGEST_GRAPH_TOKENS)),
        host_s=0.0 if group.ahead else HOST_S,  # behind the device, or between its steps
    )
    if path == AICONFIGURATOR:
        return Price(cost=open_operators(setup), quality="fitted", source="AIConfigurator's tables")
    if path.is_dir():
        about = open_description(path)
        tables = open_serving(path, group.model, group.tensor_parallel)
        source = f"{about.model} on {about.hardware}, vLLM {about.vllm_version}"
        return Price(cost=tables.grid(setup), quality="measured grid", source=source)
    if path.name.endswith((".csv", ".csv.gz")):
        return Price(cost=open_layers(path, setup), quality="measured layers", source=str(path))
    if says_profile(path):
        return Price(cost=open_fitted(path, sheet=setup.sheet), quality="fitted", source=str(path))
    return _calibrated(str(path))


def _calibrated(name: str) -> Price:
    cost = open_calibration(name)
    return Price(cost=cost, quality="calibrated", source=cost.source or name)
