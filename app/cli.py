"""The ``lethe`` command. Heavy imports stand inside the commands, so that ``--help`` is fast."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from app.cli_common import DataDir, open_session, say, settings_with
from app.cli_tokens import tokens
from app.core.settings_errors import ended_in_words

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
app.add_typer(tokens, name="token")
bench = typer.Typer(
    no_args_is_help=True,
    help="Repeat the paper's experiments, and time the engine (from a clone of the repository).",
)
app.add_typer(bench, name="bench")
# The benchmark reads its own options, also --help: they stand in one place.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


class _Stopped(SystemExit):
    """Raised by SIGTERM, so that everything is stopped in order."""


def _stop(number: int, _frame: FrameType | None) -> None:
    raise _Stopped(128 + number)


@app.command()
def serve(
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one."),
    ] = None,
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
    from app.core.restarts import keep_running
    from app.launch import running_service

    roots = [str(root) for root in data_root or []]
    settings = settings_with(data_dir=data_dir, host=host, port=port, data_roots=roots)
    with running_service(settings, show_logs=True) as service:
        say(f"\nLethe is ready at {service.url} (its description: {service.url}/docs).")
        if service.token is not None:
            say(f"Token with every scope: {service.token}")
        else:
            say("Make a token with: lethe token create NAME --scope ...")
        say(f"Its log {service.settings.ledger_origin} is signed with the key {service.key_id}.")
        say("Stop it with Ctrl-C.\n")
        sys.stdout.flush()
        keep_running(service.processes, lambda sentence: typer.echo(sentence, err=True))


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
        Path | None,
        typer.Option(help="A tree head that you kept from before the certificate was fetched."),
    ] = None,
) -> None:
    """Check a certificate of deletion, without service or network.

    Says in words what was checked, and what a signature cannot prove. Get the public key on a way
    that you trust: `/v1/ledger/public-key`.

    **Exit status:** 0 if the certificate holds, and the log of a given tree head with it; 1 if it is
    not verified; 2 if a file or an option is not what it should be; 3 if the certificate itself
    holds, but has no proof of whether its log and the given tree head agree, as when that head is
    newer: fetch it again from `/v1/audit/requests/{request_id}/certificate?since=SIZE`.
    """
    from app.ledger.explain import EXIT_STATUS, format_report
    from app.ledger.verify import CertificateError, verify_files

    try:
        report = verify_files(certificate, key, head)
    except CertificateError as error:
        typer.echo(f"NOT VERIFIED: {error}", err=True)
        raise typer.Exit(2) from error
    say(format_report(report))
    raise typer.Exit(EXIT_STATUS[report.outcome])


@app.command("verify-log")
def verify_log(
    head: Annotated[
        Path | None, typer.Option(help="A tree head that you kept from before.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Check the whole log in the database: every leaf, every hash, every signed tree head.

    Finds what a superuser of the database changed.

    **Exit status:** 0 if the log holds, and a given tree head is of it; 1 if it does not, or the head is
    of another log; 2 if a file or an option is not what it should be.
    """
    from app.ledger.form import CertificateError
    from app.ledger.integrity import check_files
    from app.ledger.key_file import KeyFileError

    settings = settings_with(data_dir=data_dir)
    try:
        with open_session(data_dir) as session:
            report = check_files(session, settings.signing_key, settings.ledger_origin, head)
    except (CertificateError, KeyFileError) as error:
        typer.echo(f"NOT VERIFIED: {error}", err=True)
        raise typer.Exit(2) from error
    say(report.text())
    raise typer.Exit(0 if report.ok else 1)


@app.command(context_settings=PASSED_ON)
def convert(context: typer.Context) -> None:
    """Turn a data set of a published format into the manifest that the service takes; see its --help."""
    from importlib.util import find_spec

    if find_spec("torch") is None or find_spec("engine") is None:
        typer.echo(
            "Formats are read by the engine, whose libraries are not installed: pip install "
            "'lethe[engine]'.",
            err=True,
        )
        raise typer.Exit(2)
    _become("engine.data", context.args)


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
    from app.launch import reachable_database

    with reachable_database(settings_with(data_dir=data_dir)):
        say("The database is up to date.")


@app.command()
def api() -> None:
    """Serve the API; needs LETHE_DATABASE_URL, LETHE_REDIS_URL, and the signing key of the log."""
    import uvicorn

    settings = settings_with()
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
    """Run a worker: one job at a time; needs what the API needs."""
    options = ["--pool", "threads", "--concurrency", "1", "--without-gossip", "--without-mingle"]
    command = [sys.executable, "-m", "celery", "-A", "worker.celery_app", "worker", *options]
    os.execv(sys.executable, command)  # noqa: S606 - a worker is Celery's own process


def _run_benchmark(module: str, arguments: list[str]) -> None:
    root = Path(__file__).parents[1]
    if not root.joinpath(*module.split("."), "__main__.py").is_file():
        typer.echo(
            "The benchmarks are no part of the installed package: clone Lethe's repository, run "
            "`make install` in it, and then `.venv/bin/lethe bench`.",
            err=True,
        )
        raise typer.Exit(2)
    _become(module, arguments)


def _become(module: str, arguments: list[str]) -> NoReturn:
    """Become the module's process, so that signals reach it."""
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    # -P: a folder `benchmarks` where the command is called must not be taken for ours.
    command = [sys.executable, "-P", "-m", module, *arguments]
    os.execve(sys.executable, command, environment)  # noqa: S606 - it is a process of its own


def main() -> None:
    """Run the command line; SIGTERM stops everything in order, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _stop)
    with ended_in_words():
        app()


if __name__ == "__main__":
    main()
