"""Where heads of others found what they inherit in feie 0.1.0; today it is `feie.heads.head`."""

from feie.heads.models.base import HeadModel

__all__ = ["HeadModel"]
