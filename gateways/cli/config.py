"""`penstock config`: check the file, show what is in effect, print the JSON Schema and the AsyncAPI document.

Blocking: reads the configuration and the files it names; --secrets also reads the secrets.
"""

import json
from pathlib import Path

import click
import yaml

from contracts.errors import ConfigError
from contracts.settings import Settings, load
from gateways.asyncapi.document import asyncapi
from gateways.cli import config_check
from gateways.cli.config_show import effective_yaml

_FILE = click.option(
    "--config", "file", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]"
)


@click.group()
def config() -> None:
    """Check or show the configuration, print its JSON Schema or AsyncAPI document."""


@config.command()
@_FILE
@click.option("--secrets", is_flag=True, help="Also read every secret, to see that it is there and can be used.")
@click.option(
    "--program",
    "programs",
    multiple=True,
    type=click.Choice(config_check.PROGRAMS),
    help="Also read the secrets that this program reads, and no others. May be given several times.",
)
def check(file: Path | None, secrets: bool, programs: tuple[str, ...]) -> None:
    """Check the file: keys, values, references, prompts and schemas.

    Prints one OK line, or one line per problem with file and line, and exits with 2.
    A warning, of what is allowed and probably not meant, changes neither.

    \b
    Examples:
      penstock config check --config penstock.yaml --secrets
      penstock config check --program worker     # in its pod, which has its own secrets alone
    """  # noqa: D301 - click's \b
    settings = load(file)
    source, wanted = config_check.document(file), None if secrets else programs
    problems = config_check.problems(settings, source, wanted)
    for warning in config_check.warnings(settings, source):
        click.echo(f"warning: {warning}", err=True)
    if problems:
        raise ConfigError("\n".join(problems))
    click.echo(f"OK: {config_check.counts(settings)}")


@config.command()
@_FILE
def show(file: Path | None) -> None:
    """Print the configuration in effect, defaults included.

    Values that came from the environment name their variable; secrets are shown as references, never as values.
    """
    click.echo(effective_yaml(load(file)), nl=False)


@config.command()
def schema() -> None:
    """Print the JSON Schema of penstock.yaml, for editors.

    \b
    Example:
      penstock config schema > penstock.schema.json
      # first line of penstock.yaml, for editors with the YAML language server:
      # yaml-language-server: $schema=penstock.schema.json
    """  # noqa: D301 - click's \b
    click.echo(json.dumps(json_schema(), indent=2))


@config.command("asyncapi")
@_FILE
@click.option("--format", "form", type=click.Choice(("yaml", "json")), default="yaml", show_default=True)
def asyncapi_command(file: Path | None, form: str) -> None:
    """Print the AsyncAPI 3.0 document of the topics.

    With records, headers, and the results of the configured routes.

    \b
    Example:
      penstock config asyncapi > asyncapi.yaml
    """  # noqa: D301 - click's \b
    document = asyncapi(load(file))
    try:
        text = as_yaml(document) if form == "yaml" else json.dumps(document, indent=2)
    except RecursionError as error:
        message = "an output schema of the routes is nested too deeply to be written"
        raise ConfigError(message) from error
    click.echo(text, nl=form == "json")


def as_yaml(document: dict[str, object]) -> str:
    """Return a document as YAML, in its own order and without anchors."""
    plain: str = yaml.dump(document, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=110)
    return plain


class _Plain(yaml.SafeDumper):
    """Writes what stands in two places twice."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def json_schema() -> dict[str, object]:
    """Return the JSON Schema (2020-12) of the configuration file."""
    generated = Settings.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **generated, "title": "penstock.yaml"}
