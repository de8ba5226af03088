"""The command line, called within the test's process."""

from click.testing import CliRunner, Result

from fake_server import FakeServer
from seqserve.__main__ import main


def run(server: FakeServer, *arguments: str, stdin: str | bytes | None = None) -> Result:
    """Runs a command; the address comes from the environment."""
    environment = {"SEQSERVE_TARGET": server.target, "SEQSERVE_TOKEN": "t"}
    return CliRunner().invoke(main, arguments, input=stdin, env=environment)
