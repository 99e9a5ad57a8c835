"""What every section of the configuration has in common."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

Lane = Annotated[str, Field(pattern="^(interactive|standard|bulk)$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86400)]


class Section(BaseModel):
    """A frozen, typed section; unknown keys are refused, docstrings under fields are their documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def _existing_file(path: Path, info: ValidationInfo) -> Path:
    context: dict[str, Any] = info.context or {}
    full = path if path.is_absolute() else Path(context.get("base", ".")) / path
    if not full.is_file():
        message = f"no such file: {full}"
        raise ValueError(message)
    return full


ExistingFile = Annotated[Path, AfterValidator(_existing_file)]
