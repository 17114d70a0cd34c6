import itertools

from hypothesis import given
from hypothesis import strategies as st

from mechint.plots.labels import CHARACTER, LINE, place_labels

SIZE = (600.0, 400.0)
points = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), max_size=25)


@given(points, points)
def test_labels_cover_neither_one_another_nor_points_and_stay_inside(named, others):
    labels = [f"L{index}H0" for index in range(len(named))]
    placed = place_labels(
        [x for x, _ in named],
        [y for _, y in named],
        labels,
        size=SIZE,
        x_range=(-1, 1),
        y_range=(-1, 1),
        obstacles=others,
    )

    boxes = []
    for index, right, down in placed:
        x, y = (named[index][0] + 1) * 300 + right, (1 - named[index][1]) * 200 + down
        half = len(labels[index]) * CHARACTER / 2
        boxes.append((x - half, y - LINE / 2, x + half, y + LINE / 2))
    dots = [((x + 1) * 300, (1 - y) * 200) for x, y in [*named, *others]]
    for one, two in itertools.combinations(boxes, 2):
        apart = one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
        assert apart or max(one[0] - two[2], two[0] - one[2], one[1] - two[3], two[1] - one[3]) > -0.2
    for left, top, right, bottom in boxes:
        assert left >= -0.1
        assert right <= 600.1
        assert not any(left < u < right and top < v < bottom for u, v in dots)


def test_a_label_for_which_there_is_no_room_is_left_out():
    placed = place_labels([0.0] * 50, [0.0] * 50, ["L10H10"] * 50, size=(120, 80), x_range=(-1, 1), y_range=(-1, 1))

    assert 0 < len(placed) < 50


def test_the_first_label_is_placed_first():
    placed = place_labels([0, 0], [0, 0], ["first", "second"], size=SIZE, x_range=(-1, 1), y_range=(-1, 1))

    assert abs(placed[0][1]) <= abs(placed[1][1])
