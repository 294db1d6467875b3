"""``lethe token``: make, list and revoke the tokens of callers."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli_common import DataDir, open_session, say

if TYPE_CHECKING:
    from app.auth.tables import Token

tokens = typer.Typer(no_args_is_help=True, help="Make, list and revoke the tokens of callers.")


@tokens.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who will use it.")],
    scope: Annotated[list[str], typer.Option(help="What it allows; can be repeated.")],
    days: Annotated[
        int | None,
        typer.Option(min=1, max=36500, help="Days until it expires; never when left out."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a token and print it: the only time that it can be read.

    Scopes: deletions:read, deletions:write, deletions:review, models:read, models:write,
    checkpoints:download, audit:read, webhooks:write, admin (all of them).
    """
    from app.auth.service import create_token
    from app.core.errors import Problem

    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    try:
        with open_session(data_dir) as session:
            token, secret = create_token(session, name, scope, expires)
            token_id = token.token_id
    except Problem as problem:
        typer.echo(problem.detail, err=True)
        raise typer.Exit(2) from problem
    typer.echo(f"{token_id}: keep this secret, it is not shown again.", err=True)
    say(secret)


@tokens.command("list")
def show(data_dir: DataDir = None) -> None:
    """List every token: id, state, name and scopes. Secrets are not kept."""
    from sqlalchemy import func, select

    from app.auth.tables import Token

    with open_session(data_dir) as session:
        now = session.scalars(select(func.now())).one()
        say(f"{'ID':36}  {'STATE':23}  NAME  SCOPES")
        for token in session.scalars(select(Token).order_by(Token.token_id)):
            state = _state(token, now)
            say(f"{token.token_id:36}  {state:23}  {token.name}  {','.join(token.scopes)}")


@tokens.command("revoke")
def revoke(
    token_id: Annotated[str, typer.Argument(help="The id that `lethe token list` shows.")],
    data_dir: DataDir = None,
) -> None:
    """End a token; a running service refuses it within seconds."""
    from app.auth.service import revoke_token

    with open_session(data_dir) as session:
        ended = revoke_token(session, token_id)
    if not ended:
        typer.echo(f"No active token has the id {token_id}; see `lethe token list`.", err=True)
        raise typer.Exit(1)
    say(f"{token_id} is revoked.")


def _state(token: "Token", now: datetime) -> str:
    """Return whether a token works, and until or since when."""
    if token.revoked_time is not None:
        return f"revoked {token.revoked_time:%F}"
    if token.expires_time is None:
        return "active"
    word = "active until" if token.expires_time > now else "expired"
    return f"{word} {token.expires_time:%F}"
