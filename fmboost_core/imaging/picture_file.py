"""The old place of `Picture` and its functions. To be removed when nothing imports it any more."""

from .formats import READ_FORMATS as READ_FORMATS, READ_SUFFIXES as READ_SUFFIXES, WRITE_FORMATS as WRITE_FORMATS
from .picture import Picture as Picture
from .read import read_picture as read_picture
from .write import (
    check_output as check_output,
    preview as preview,
    save_image as save_image,
    write_picture as write_picture,
)
