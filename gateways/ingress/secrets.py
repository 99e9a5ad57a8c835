"""Reads what references to secrets point at: variables and files at once, AWS Secrets Manager through a store.

Blocking: reads files; a store calls AWS Secrets Manager. Never used on the event loop after the start.
"""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from contracts.errors import ConfigError
from contracts.settings import SecretRef
from contracts.settings.secrets_manager import SecretsManagerSettings


class Value(NamedTuple):
    """One value behind a reference.

    Attributes:
        suffix: for the key's id, to tell a version before from the current one.
        not_after: how long a version before still counts.
    """

    text: bytes
    suffix: str = ""
    not_after: datetime | None = None


class Vault(Protocol):
    """A service that keeps secrets; gateways.ingress.aws_secrets.AwsSecrets is the one there is."""

    def values(self, reference: SecretRef) -> tuple[Value, ...]:
        """Return the current value, then those before that still count; what is known when the service is away.

        Raises:
            ConfigError: nothing is known.
        """
        ...

    def expire(self) -> None:
        """Ask again at the next look."""
        ...

    def keep(self, references: Collection[str]) -> None:
        """Forget what is not among these."""
        ...

    @property
    def is_due(self) -> bool:
        """Tell whether something is to be asked for again."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Secrets:
    """One reading: each reference is read once, so that everything made from it has seen the same values.

    Args:
        vault: makes the service's client when the first reference to it is met; no service when None.

    Attributes:
        seen: values by reference.
    """

    def __init__(self, vault: Callable[[], Vault] | None = None) -> None:
        self._vault = vault
        self.seen: dict[str, tuple[Value, ...]] = {}

    def values(self, reference: SecretRef) -> tuple[Value, ...]:
        """Return the current value, then those before that still count.

        Raises:
            ConfigError: there is none, or it is empty.
        """
        if reference.reference not in self.seen:
            if reference.kind == "aws-sm" and self._vault is not None:
                found = self._vault().values(reference)
            else:
                found = (Value(reference.resolve()),)
            if not found[0].text.strip():
                message = f"secret {reference.reference} is empty"
                raise ConfigError(message)
            self.seen[reference.reference] = found
        return self.seen[reference.reference]


class SecretStore:
    """Where a process gets its readings from; what it has fetched from a service, it keeps.

    Args:
        settings: of AWS Secrets Manager.
        make: in place of its client, for tests.

    Attributes:
        latest: the reading that was begun last.
    """

    def __init__(self, settings: SecretsManagerSettings, make: Callable[[], Vault] | None = None) -> None:
        self._settings = settings
        self._make = make or self._aws
        self._vault: Vault | None = None
        self.latest = Secrets(self._opened)

    def reading(self) -> Secrets:
        """Begin a reading."""
        self.latest = Secrets(self._opened)
        return self.latest

    def expire(self) -> None:
        """Let the next reading ask the service again."""
        if self._vault is not None:
            self._vault.expire()

    def keep(self, references: Collection[str]) -> None:
        """Forget what is not among these references."""
        if self._vault is not None:
            self._vault.keep(references)

    @property
    def is_due(self) -> bool:
        """Tell whether a service's secrets are to be fetched again."""
        return self._vault is not None and self._vault.is_due

    def close(self) -> None:
        """Let go of connections."""
        if self._vault is not None:
            self._vault.close()

    def _opened(self) -> Vault:
        if self._vault is None:
            self._vault = self._make()
        return self._vault

    def _aws(self) -> Any:
        # boto3 costs a quarter of a second and some 30 MB, which most gateways need not pay.
        from gateways.ingress.aws_secrets import AwsSecrets

        return AwsSecrets(self._settings)
