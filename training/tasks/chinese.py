"""The same questions about scenes in Chinese, and small talk."""

from collections.abc import Callable
from random import Random

from training.sample import Asked
from training.tasks.scenes import counted, present, targets
from training.world import Scene, Thing

OUTSIDE = "我不知道。我只认识简单的图形、印刷的文字、数字和短视频。"
COLORS = {
    "red": "红色",
    "green": "绿色",
    "blue": "蓝色",
    "yellow": "黄色",
    "orange": "橙色",
    "purple": "紫色",
    "pink": "粉色",
    "brown": "棕色",
    "black": "黑色",
    "white": "白色",
    "gray": "灰色",
}
SHAPES = {
    "circle": "圆形",
    "square": "正方形",
    "triangle": "三角形",
    "star": "星形",
    "cross": "十字形",
    "diamond": "菱形",
    "ring": "圆环",
    "heart": "心形",
}
SIZES = {"small": "小", "large": "大"}
CELLS = ("左上角", "上方", "右上角", "左边", "中间", "右边", "左下角", "下方", "右下角")
_DESCRIBE = ("描述这张图片。", "图片里有什么？", "你看到了什么？", "这张图里有什么？", "请描述图片。")
_COLOR = ("{}是什么颜色？", "{}是什么颜色的？", "{}的颜色是什么？")
_SHAPE = ("{}的物体是什么形状？", "{}的东西是什么形状？", "{}的是什么图形？")
_WHERE = ("{}在哪里？", "{}在图片的什么位置？", "{}在哪儿？")
_COUNT = ("有几个{}？", "图片里有多少个{}？", "一共有几个{}？")
_EXISTS = ("有没有{}？", "图片里有{}吗？", "你看到{}了吗？")
_OUTSIDE = (
    "这只狗是什么品种？",
    "图中的人是谁？",
    "今天天气怎么样？",
    "这是哪个城市？",
    "这个多少钱？",
    "他在做什么？",
)
SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (("你好", "你好！", "您好", "早上好", "嗨"), "你好！给我一张图片或一段短视频，然后问我吧。"),
    (
        ("你是谁？", "你叫什么名字？", "你叫什么？", "介绍一下你自己。"),
        "我是 Tessera Tiny，一个很小的视觉语言模型。",
    ),
    (
        ("你会做什么？", "你能做什么？", "你会什么？"),
        "我能描述简单的图片：颜色、形状、大小、位置和数量。我也能读印刷的文字和数字，看懂短视频。",
    ),
    (("谢谢", "谢谢！", "谢谢你", "多谢"), "不客气。"),
    (("再见", "再见！", "拜拜", "晚安"), "再见！"),
    (("你好吗？", "你怎么样？"), "我很好，谢谢。要我看什么？"),
)
BEYOND = ("法国的首都是哪里？", "写一首诗。", "讲个笑话。", "现在几点？", "怎么做饭？", "谁是总统？", "一加一等于几？")
NO_IMAGE = "我没有看到图片，请发一张给我。"


def name(thing: Thing) -> str:
    """`红色的圆形`."""
    return f"{COLORS[thing.color]}的{SHAPES[thing.shape]}"


def _phrase(thing: Thing, size: str, cell: int) -> str:
    return f"{CELLS[cell]}有一个{SIZES[size]}的{COLORS[thing.color]}{SHAPES[thing.shape]}"


def _caption(rng: Random, scene: Scene) -> Asked:
    text = "，".join(_phrase(thing, thing.size, thing.cell) for thing in scene.things) or "什么都没有"
    right = tuple(
        tuple(_phrase(thing, size, cell) for size in thing.sizes for cell in thing.cells) for thing in scene.things
    )
    return Asked("caption, Chinese", rng.choice(_DESCRIBE), text + "。", targets(scene, *scene.things), right)


def _color(rng: Random, scene: Scene) -> Asked | None:
    things = scene.unique("shape")
    if not things:
        return None
    thing = rng.choice(things)
    question = rng.choice(_COLOR).format(SHAPES[thing.shape])
    return Asked("color, Chinese", question, COLORS[thing.color], targets(scene, thing))


def _shape(rng: Random, scene: Scene) -> Asked | None:
    things = scene.unique("color")
    if not things:
        return None
    thing = rng.choice(things)
    question = rng.choice(_SHAPE).format(COLORS[thing.color])
    return Asked("shape, Chinese", question, SHAPES[thing.shape], targets(scene, thing))


def _position(rng: Random, scene: Scene) -> Asked | None:
    things = scene.unique("name")
    if not things:
        return None
    thing = rng.choice(things)
    short = thing in scene.unique("shape") and rng.random() < 0.4
    question = rng.choice(_WHERE).format(SHAPES[thing.shape] if short else name(thing))
    right = tuple(CELLS[cell] for cell in thing.cells)
    return Asked("position, Chinese", question, right[0], targets(scene, thing), (right,))


def _count(rng: Random, scene: Scene) -> Asked:
    color, shape, found = counted(rng, scene)
    what = SHAPES[shape] if shape else f"{COLORS[color]}的物体" if color else rng.choice(("物体", "图形"))
    listed = "，".join(CELLS[thing.cell] for thing in found)
    answer = f"{listed}：{len(found)}" if found else "0"
    return Asked("count, Chinese", rng.choice(_COUNT).format(what), answer, targets(scene, *found))


def _exists(rng: Random, scene: Scene) -> Asked:
    color, shape, there = present(rng, scene)
    question = rng.choice(_EXISTS).format(f"{COLORS[color]}的{SHAPES[shape]}")
    return Asked("exists, Chinese", question, "有" if there else "没有")


def _outside(rng: Random, scene: Scene) -> Asked:
    return Asked("outside, Chinese", rng.choice(_OUTSIDE), OUTSIDE)


QUESTIONS: dict[str, Callable[[Random, Scene], Asked | None]] = {
    "caption": _caption,
    "color": _color,
    "shape": _shape,
    "position": _position,
    "count": _count,
    "exists": _exists,
    "outside": _outside,
}
"""As `scenes.QUESTIONS`, by the English name."""
