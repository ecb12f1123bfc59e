"""The array functions of the public namespace, which loads this when it is first asked for one.

Star imports: each module's __all__ is its part.
"""

# ruff: noqa: F403
from tracejit.functions.counting import *
from tracejit.functions.creation import *
from tracejit.functions.dtypes import *
from tracejit.functions.elementwise import *
from tracejit.functions.gather import *
from tracejit.functions.joining import *
from tracejit.functions.movement import *
from tracejit.functions.nn import *
from tracejit.functions.ordering import *
from tracejit.functions.products import *
from tracejit.functions.pytorch import *
from tracejit.functions.random import manual_seed as manual_seed
from tracejit.functions.random import rand as rand
from tracejit.functions.random import randint as randint
from tracejit.functions.random import randn as randn
from tracejit.functions.random import randperm as randperm
from tracejit.functions.reductions import *
from tracejit.functions.sampled import *
