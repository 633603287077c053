SIDES_DIFFER = ()


def draw(folder):
    raise NotImplementedError
