"""The ``lethe`` command. Heavy imports stand inside the commands, so that ``--help`` is fast."""

import os
import signal
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from app.core.settings import Settings

app = typer.Typer(
    name="lethe",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Unlearning as a service for multimodal models.

    Post a deletion request for (image, text) or (graph, text) pairs; a worker unlearns them in
    every registered model version that learned from them; get a new checkpoint, its audit, and a
    certificate that anyone can verify offline.

    **First steps:** `lethe demo` shows the whole way on handwritten digits in a few minutes.
    `lethe serve` starts the service on this machine, with a private database and broker, and prints
    its URL and a token; the API describes itself at `/docs`.

    **In production** run `lethe migrate` once, then `lethe api` and `lethe worker` as often as you
    like, with `LETHE_DATABASE_URL`, `LETHE_REDIS_URL` and `LETHE_STORAGE_URL` set. Every setting is
    an environment variable; docs/settings.md lists them.
    """,
)
tokens = typer.Typer(no_args_is_help=True, help="Make, list and revoke the tokens of callers.")
app.add_typer(tokens, name="token")
bench = typer.Typer(
    no_args_is_help=True,
    help="Repeat the paper's experiments, and time the engine (from a clone of the repository).",
)
app.add_typer(bench, name="bench")
# The benchmark reads its own options, also --help: they stand in one place.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of private servers, storage and keys [LETHE_DATA_DIR, else ./lethe-data].",
    ),
]


class _Stopped(SystemExit):
    """Raised by SIGTERM, so that everything is stopped in order."""


def _stop(number: int, _frame: FrameType | None) -> None:
    raise _Stopped(128 + number)


def _settings(**given: object) -> "Settings":
    """Return the settings of the environment, with the options that were given."""
    from app.core.settings import get_settings

    chosen = {name: value for name, value in given.items() if value not in (None, [])}
    return get_settings().model_copy(update=chosen)


def _say(text: str = "") -> None:
    typer.echo(text)


@app.command()
def serve(
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    data_root: Annotated[
        list[Path] | None,
        typer.Option(help="A folder below which datasets may lie; can be repeated."),
    ] = None,
) -> None:
    """Start the service on this machine and stay until Ctrl-C.

    Runs the migrations, the API and one worker. A private PostgreSQL is started unless
    LETHE_DATABASE_URL is set, and a private Redis unless LETHE_REDIS_URL is set. What ends
    unexpectedly is started again.
    """
    from app.core.launch import running_service

    roots = [str(root.absolute()) for root in data_root or []]
    settings = _settings(data_dir=data_dir, host=host, port=port, data_roots=roots)
    with running_service(settings, show_logs=True) as service:
        _say(f"\nLethe is ready at {service.url} (its description: {service.url}/docs).")
        if service.token is not None:
            _say(f"Token with every scope: {service.token}")
        else:
            _say("Make a token with: lethe token create NAME --scope ...")
        _say("Stop it with Ctrl-C.\n")
        sys.stdout.flush()
        service.keep_running(lambda sentence: typer.echo(sentence, err=True))


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Dataset folder of a known format; handwritten digits when left out."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file as well.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoint, report and certificate [./lethe-demo/DATASET]."),
    ] = None,
    method: Annotated[str, typer.Option(help="Unlearning method.")] = "multidelete",
    forget: Annotated[
        float, typer.Option(min=0.0001, max=0.5, help="Share of the training pairs to forget.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of data, training and choice of pairs.")] = 0,
) -> None:
    """Show the whole way on real data: train, forget, audit, certify, verify.

    Starts the service in a folder of its own, talks to it over HTTP only, as your own system would,
    and stops it at the end. The exit status is 0 only if everything held that the table claims.
    """
    from app.demo.story import DemoOptions, run_demo

    options = DemoOptions(data=data, out=out, method=method, share=forget, seed=seed)
    raise typer.Exit(run_demo(options, json_file))


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="The certificate's JSON file.")],
    key: Annotated[Path, typer.Option(help="The log's public key (PEM).")],
    head: Annotated[
        Path | None, typer.Option(help="A tree head that you kept from before.")
    ] = None,
) -> None:
    """Check a certificate of deletion, without service or network.

    Says in words what was checked, and what a signature cannot prove. The exit status is 0 only if
    the certificate holds. Get the public key on a way that you trust: `/v1/ledger/public-key`.
    """
    from app.ledger.explain import format_report
    from app.ledger.verify import CertificateError, verify_files

    try:
        report = verify_files(certificate, key, head)
    except CertificateError as error:
        typer.echo(f"NOT VERIFIED: {error}", err=True)
        raise typer.Exit(2) from error
    _say(format_report(report))
    raise typer.Exit(0 if report.ok else 1)


@app.command("verify-log")
def verify_log(
    head: Annotated[
        Path | None, typer.Option(help="A tree head that you kept from before.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Check the whole log in the database: every leaf, every hash, every signed tree head.

    Finds what a superuser of the database changed. The exit status is 0 only if the log holds.
    """
    from app.ledger.integrity import check_files
    from app.ledger.tree_head import KeyFileError
    from app.ledger.verify import CertificateError

    settings = _settings(data_dir=data_dir)
    try:
        with _session(data_dir) as session:
            report = check_files(session, settings.signing_key, settings.ledger_origin, head)
    except (CertificateError, KeyFileError) as error:
        typer.echo(f"NOT VERIFIED: {error}", err=True)
        raise typer.Exit(2) from error
    _say(report.text())
    raise typer.Exit(0 if report.ok else 1)


@tokens.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who will use it.")],
    scope: Annotated[list[str], typer.Option(help="What it allows; can be repeated.")],
    days: Annotated[
        int | None, typer.Option(min=1, help="Days until it expires; never when left out.")
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
        with _session(data_dir) as session:
            token, secret = create_token(session, name, scope, expires)
            token_id = token.token_id
    except Problem as problem:
        typer.echo(problem.detail, err=True)
        raise typer.Exit(2) from problem
    typer.echo(f"{token_id}: keep this secret, it is not shown again.", err=True)
    _say(secret)


@tokens.command("list")
def show(data_dir: DataDir = None) -> None:
    """List every token: id, name, scopes, and until when it works. Secrets are not kept."""
    from sqlalchemy import select

    from app.auth.tables import Token

    with _session(data_dir) as session:
        for token in session.scalars(select(Token).order_by(Token.token_id)):
            state = "active" if token.expires_time is None else f"until {token.expires_time:%F}"
            state = state if token.revoked_time is None else f"revoked {token.revoked_time:%F}"
            _say(f"{token.token_id}  {state:18}  {token.name}  {','.join(token.scopes)}")


@tokens.command("revoke")
def revoke(
    token_id: Annotated[str, typer.Argument(help="The id that `lethe token list` shows.")],
    data_dir: DataDir = None,
) -> None:
    """End a token; a running service refuses it within seconds."""
    from app.auth.service import revoke_token

    with _session(data_dir) as session:
        ended = revoke_token(session, token_id)
    if not ended:
        typer.echo(f"No active token has the id {token_id}; see `lethe token list`.", err=True)
        raise typer.Exit(1)
    _say(f"{token_id} is revoked.")


@bench.command("paper", context_settings=PASSED_ON)
def bench_paper(context: typer.Context) -> None:
    """Train, unlearn by every method, and write the paper's tables and plots; see its --help."""
    _run_benchmark("benchmarks.paper", context.args)


@bench.command("step", context_settings=PASSED_ON)
def bench_step(context: typer.Context) -> None:
    """Time MultiDelete's step beside a plain loop with the same loss; see its --help."""
    _run_benchmark("benchmarks.step", context.args)


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the newest tables; safe to repeat."""
    from app.core.launch import reachable_database

    with reachable_database(_settings(data_dir=data_dir)):
        _say("The database is up to date.")


@app.command()
def api() -> None:
    """Serve the API; needs LETHE_DATABASE_URL and LETHE_REDIS_URL."""
    import uvicorn

    settings = _settings()
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        log_config=None,  # the service configures its own
        access_log=False,
        timeout_graceful_shutdown=10,
    )


@app.command()
def worker() -> None:
    """Run a worker: one job at a time; needs LETHE_DATABASE_URL and LETHE_REDIS_URL."""
    options = ["--pool", "threads", "--concurrency", "1", "--without-gossip", "--without-mingle"]
    command = [sys.executable, "-m", "celery", "-A", "worker.celery_app", "worker", *options]
    os.execv(sys.executable, command)  # noqa: S606 - a worker is Celery's own process


def _run_benchmark(module: str, arguments: list[str]) -> None:
    """Become the benchmark's process, so that signals reach it."""
    root = Path(__file__).parents[1]
    if not root.joinpath(*module.split("."), "__main__.py").is_file():
        typer.echo(
            "The benchmarks are no part of the installed package: clone Lethe's repository, run "
            "`make install` in it, and then `.venv/bin/lethe bench`.",
            err=True,
        )
        raise typer.Exit(2)
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    # -P: a folder `benchmarks` where the command is called must not be taken for ours.
    command = [sys.executable, "-P", "-m", module, *arguments]
    os.execve(sys.executable, command, environment)  # noqa: S606 - a benchmark is its own process


@contextmanager
def _session(data_dir: Path | None) -> "Iterator[Session]":
    """Open one transaction on the service's database."""
    from app.core.db import Database
    from app.core.launch import reachable_database

    with reachable_database(_settings(data_dir=data_dir)) as url:
        database = Database(url, pool_size=1)
        try:
            with database.transaction() as session:
                yield session
        finally:
            database.dispose()


def main() -> None:
    """Run the command line; SIGTERM stops everything in order, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _stop)
    from app.core.server_account import EmbeddedServerError

    try:
        app()
    except EmbeddedServerError as error:
        typer.echo(str(error), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
