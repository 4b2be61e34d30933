def write_page(cells, path):
    pass
