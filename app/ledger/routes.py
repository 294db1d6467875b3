"""The log over HTTP: its head, leaves, proofs and public key."""

from base64 import b64encode
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse

from app.auth.service import Caller, require
from app.core.db import SessionDep
from app.core.numbers import LARGEST, Within
from app.core.problems import problems
from app.ledger import log, tables
from app.ledger.certificate import encoded
from app.ledger.errors import LogCorrupt, NoSuchLeaf, NoSuchSize, asked_by
from app.ledger.schemas import ConsistencyOut, EntriesOut, EntryOut, HeadOut, InclusionOut
from app.ledger.tree_head import Signer

router = APIRouter(prefix="/ledger", tags=["ledger"])

Reader = Annotated[Caller, Depends(require("audit:read"))]
Size = Annotated[int, Within(0, LARGEST), Query(examples=[1])]


def _signer(request: Request) -> Signer:
    signer: Signer = request.app.state.signer
    return signer


SignerDep = Annotated[Signer, Depends(_signer)]


@router.get("/head", responses=problems(LogCorrupt))
def read_head(session: SessionDep, signer: SignerDep, _: Reader) -> HeadOut:
    """Return the signed tree head of the log as it is now."""
    head = log.head(session, signer)
    return HeadOut(
        origin=head.origin,
        size=head.size,
        root=_text(head.root),
        key_id=signer.key_id,
        note=head.note,
    )


@router.get("/entries", responses=problems(NoSuchSize))
def list_entries(
    session: SessionDep,
    _: Reader,
    start: Size = 0,
    limit: Annotated[int, Within(1, 200), Query(description="Leaves at most.")] = 100,
) -> EntriesOut:
    """Return leaves from index ``start`` on; go on with ``start`` = last index + 1."""
    items = [_entry(leaf) for leaf in log.entries(session, start, limit)]
    return EntriesOut(size=log.size(session), items=items)


@router.get("/proof/inclusion", responses=problems(NoSuchLeaf, NoSuchSize))
def prove_inclusion(session: SessionDep, _: Reader, leaf_index: Size, size: Size) -> InclusionOut:
    """Return the proof that leaf ``leaf_index`` is in the tree of the first ``size`` leaves."""
    with asked_by("size" if leaf_index < size else "leaf_index"):
        hashes = log.inclusion(session, leaf_index, size)
    leaf, root = log.range_hashes(session, [(leaf_index, leaf_index + 1), (0, size)])
    return InclusionOut(
        leaf_index=leaf_index,
        size=size,
        leaf_hash=_text(leaf),
        root=_text(root),
        hashes=encoded(hashes),
    )


@router.get("/proof/consistency", responses=problems(NoSuchSize))
def prove_consistency(session: SessionDep, _: Reader, first: Size, second: Size) -> ConsistencyOut:
    """Return the proof that the first ``second`` leaves only add to the first ``first``."""
    with asked_by("second" if first <= second else "first"):
        hashes = log.consistency(session, first, second)
    first_root, second_root = log.range_hashes(session, [(0, first), (0, second)])
    return ConsistencyOut(
        first=first,
        second=second,
        first_root=_text(first_root),
        second_root=_text(second_root),
        hashes=encoded(hashes),
    )


@router.get("/public-key", response_class=PlainTextResponse)
def read_public_key(signer: SignerDep) -> str:
    """Return the Ed25519 key (PEM) that tree heads and certificates are signed with.

    Needs no token. Compare it with what the operator publishes elsewhere before you trust it.
    """
    return signer.public_key_pem


def _text(digest: bytes) -> str:
    return b64encode(digest).decode()


def _entry(leaf: tables.Leaf) -> EntryOut:
    return EntryOut(
        leaf_index=leaf.leaf_index,
        kind=leaf.kind,
        subject=leaf.subject,
        leaf=bytes(leaf.body).decode(),
        leaf_hash=_text(bytes(leaf.leaf_hash)),
        created_time=leaf.created_time,
    )
