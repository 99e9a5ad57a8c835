"""Which changes a running gateway takes over, and how it notices them."""

from pydantic import Field

from contracts.settings.section import Section


class ReloadSettings(Section):
    """Reload without a restart: `sources`, `gateway.api_keys` and their secrets. SIGHUP asks for one at any time."""

    watch: bool = True
    """Look at the configuration file, and at the files that these secrets refer to, by itself."""
    interval_s: float = Field(default=5.0, ge=0.05, le=3600)
    """How often; a change counts when two looks in a row have found it, so that a file is not read half-written."""
