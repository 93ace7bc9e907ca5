"""Evidence as data: references to recordings, transcripts and files, never their content (T-02)."""

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, StringConstraints
from sqlalchemy.orm import Mapped

from spine.kernel import ids, store
from spine.kernel.resource import Body, Metadata, ResourceOut, TenantRow

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_SCHEMES: Final = frozenset({"https", "http", "s3", "gs"})
_CALL: Final = ids.PREFIXES["call"]


def _reference(ref: str) -> str:
    """Return the reference. Raises ValueError for one that could hold or run content instead of naming it."""
    if re.search(r"[\s\x00-\x1f\x7f]", ref):
        raise ValueError("a reference has no blanks: a call's id, a URL or an object key")
    scheme = _SCHEME.match(ref)
    if scheme and scheme[1].lower() not in _SCHEMES:
        raise ValueError(f"evidence is linked, not copied: give a call's id, an object key or a URL of {_LISTED}")
    if ref.startswith(f"{_CALL}_") and not ids.is_id(ref, _CALL):
        raise ValueError(f"this begins like the id of a call, {_CALL}_…, but is none")
    return ref


_LISTED: Final = ", ".join(sorted(_SCHEMES))

EvidenceRef = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2048),
    AfterValidator(_reference),
    Field(description="The id of a call of this workspace (cal_…), a URL (https, http, s3, gs) or an object key."),
]


class EvidenceRow(TenantRow):
    __tablename__ = "evidence"
    ticket_id: Mapped[str]
    kind: Mapped[str]
    ref: Mapped[str]
    label: Mapped[str | None]
    call_id: Mapped[str | None]

    constraint_errors = {"evidence_call": lambda: store.reference_not_found("ref")}  # read-only


class EvidenceCreate(Body):
    kind: Annotated[
        str,
        StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$"),
        Field(description="What it is in one word, such as recording, transcript or photo."),
    ]
    ref: EvidenceRef
    label: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)] | None = None
    metadata: Metadata = {}


class EvidenceOut(ResourceOut):
    object: str = "evidence"
    ticket_id: str
    kind: str
    ref: str
    label: str | None


def evidence_columns(ticket_id: str, body: EvidenceCreate) -> dict[str, Any]:
    """Return the columns of a ticket's new evidence."""
    call_id = body.ref if ids.is_id(body.ref, _CALL) else None
    return {**store.columns(body), "ticket_id": ticket_id, "call_id": call_id}
