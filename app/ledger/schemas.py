"""What the routes of the log answer. Hashes are base64, as in tree heads; sizes count leaves."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

Hash = Annotated[
    str,
    Field(
        description="SHA-256, base64.", examples=["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]
    ),
]


class HeadOut(BaseModel):
    """The signed head of the log; ``note`` is what is signed, the rest is read out of it."""

    origin: str = Field(examples=["lethe.local/log"])
    size: int = Field(examples=[42])
    root: Hash
    key_id: str = Field(
        description="What the key that signed is named by, here and in certificates.",
        examples=["c74f20a3"],
    )
    note: str = Field(description="C2SP signed note; keep it to compare with later heads.")


class EntryOut(BaseModel):
    """A leaf. Its hash is SHA-256 of a zero byte and the bytes of ``leaf`` in UTF-8 (RFC 6962)."""

    leaf_index: int
    kind: str = Field(examples=["version_produced"])
    subject: str = Field(description="Identifier of the resource that the leaf is about.")
    leaf: str = Field(description="Canonical JSON (RFC 8785), to the byte.")
    leaf_hash: Hash
    created_time: datetime


class EntriesOut(BaseModel):
    """Leaves in order; ``size`` is the number of leaves of the log now."""

    size: int
    items: list[EntryOut]


class InclusionOut(BaseModel):
    """Proof that a leaf is in the tree of ``size`` leaves (RFC 6962 section 2.1.1)."""

    leaf_index: int
    size: int
    leaf_hash: Hash
    root: Hash
    hashes: list[Hash]


class ConsistencyOut(BaseModel):
    """Proof that the tree of ``second`` leaves only adds to that of ``first`` (RFC 6962, 2.1.2)."""

    first: int
    second: int
    first_root: Hash
    second_root: Hash
    hashes: list[Hash]


class CertificateOut(BaseModel):
    """A certificate of deletion, to be checked offline by ``lethe verify``."""

    # Sent as it is stored: what was signed must not be rewritten on its way.
    media_type: str = Field(alias="mediaType")
    dsse_envelope: dict[str, Any] = Field(
        alias="dsseEnvelope", description="in-toto Statement v1 in a DSSE envelope."
    )
    ledger: dict[str, Any] = Field(
        description="leaf, leafIndex, inclusionProof, treeHead; consistencyProof where asked for."
    )
