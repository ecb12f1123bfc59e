"""The array functions, by family. Importing this package gives ``Tensor`` its methods."""

from tracejit.functions import methods as methods
