from .ict import FaceMesh as FaceMesh
from .ict import load_ict as load_ict
from .render import FaceRenderer as FaceRenderer
from .sampling import Sample as Sample
from .sampling import draw_sample as draw_sample
