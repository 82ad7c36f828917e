from .info import InfoResult as InfoResult
from .merge import MergeResult as MergeResult
from .options import InfoOptions as InfoOptions
from .options import MergeOptions as MergeOptions
from .options import VerifyOptions as VerifyOptions
from .verify import VerifyResult as VerifyResult
