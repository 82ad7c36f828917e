from .functions import job as job
from .jobs import JOBS as JOBS
from .options import Flag as Flag
from .options import Options as Options
from .progress import Progress as Progress
from .result import Result as Result
