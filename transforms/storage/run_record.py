"""The content of run.json: what a run is, and, once it has ended, how it went."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# The status while a run is deleted that is overwritten.
DELETING = "deleting"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of run.json.

    Attributes:
        status: `DELETING` while the run that was there before is deleted, `running`, `finished`, `nothing_scored`, or
            `incomplete` if input is still to be read.
        fingerprint: hash of the identity. An unfinished run is resumed only by a run with the same one.
        claim: of the launcher that took the directory; it differs with every launch.
        identity: everything that decides the rows: version, settings, hashes of the weights, input files.
        versions: of the libraries, by name.
        beam_flags: the flags that went to Beam.
        started: when the launcher started, in seconds since 1970.
        seconds: from the start of the launcher to the end of the run; None: it has not ended.
        counts: numbers of pairs by what became of them; None: it has not ended.
        precision: what the networks were computed in; None: it has not ended.
        devices: the kinds of device that computed; None: it has not ended.
        reused: number of pairs taken over from the earlier run of `--reuse`; None: it has not ended.
        scored_again: why the files of an earlier try could not be used, by chunk; None: it has not ended.
        price_per_hour: of a worker machine; None: it was not given.
        performance: where the workers' time went, see `summary.performance`; None: it has not ended.
    """

    status: str = "running"
    fingerprint: str
    identity: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)
    beam_flags: tuple[str, ...] = ()
    started: float = 0.0
    seconds: float | None = None
    counts: Mapping[str, int] | None = None
    precision: tuple[str, ...] | None = None
    devices: tuple[str, ...] | None = None
    reused: int | None = None
    scored_again: Mapping[str, str] | None = None
    claim: str = ""
    price_per_hour: float | None = None
    performance: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as JSON, without what is not known yet."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: object) -> "RunRecord":
        """The record of parsed JSON, without keys that another version may have added.

        Raises:
            ValueError: it is not the record of a run.
        """
        if not isinstance(data, dict):
            raise ValueError("its run.json does not hold a JSON object")
        if missing := [name for name in ("identity", "fingerprint") if name not in data]:
            raise ValueError(f"its run.json has no {missing[0]}")
        known: dict[str, Any] = {name: data[name] for name in _KINDS if name in data}
        numbers = {name: value for name, value in known.items() if isinstance(value, (int, float))}
        wrong = [name for name, value in known.items() if not isinstance(value, _KINDS[name])]
        if wrong := wrong or [name for name, value in numbers.items() if not 0 <= value < _BEYOND_ANY]:
            raise ValueError(f"its run.json has {wrong[0]}={known[wrong[0]]!r}")
        known.update({name: tuple(value) for name, value in known.items() if isinstance(value, list)})
        return cls(**known)


# No number of a run comes near it, and no date lies so far away.
_BEYOND_ANY = 10**11

# The JSON type of each field.
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("status", "fingerprint", "claim"), str),
    **dict.fromkeys(("identity", "versions", "counts", "scored_again", "performance"), dict),
    **dict.fromkeys(("beam_flags", "precision", "devices"), list),
    **dict.fromkeys(("started", "seconds", "price_per_hour"), (int, float)),
    "reused": int,
}
