from .demo import DemoResult as DemoResult
from .doctor import DoctorResult as DoctorResult
from .models import ModelsResult as ModelsResult
from .options import DemoOptions as DemoOptions
from .options import DoctorOptions as DoctorOptions
from .options import ModelsOptions as ModelsOptions
