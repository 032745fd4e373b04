"""What tests hand over in the place of files and of other packages' arrays."""


class Lazy:
    """A zarr or h5py array: a shape, a dtype, slices, and nothing that reads it whole."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.largest = values, values.shape, values.dtype, 0

    def __getitem__(self, key):
        part = self.values[key]
        self.largest = max(self.largest, part.shape[1])
        return part
