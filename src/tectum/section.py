"""The base of everything that a config sets: a section is the object that it configures."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Checked, unchangeable settings, in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
