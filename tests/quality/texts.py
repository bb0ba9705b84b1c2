"""Texts written for the labelled set by the project: what captions, poems, dialogue and tag lists look like."""

from pathlib import Path

FOLDER = Path(__file__).parent
PROSE = FOLDER.joinpath("prose.txt").read_text(encoding="utf-8").splitlines()
GENERAL_TAGS = FOLDER.joinpath("tags.txt").read_text(encoding="utf-8").splitlines()

POEMS = (
    """The image shows a page with a poem:
I walked along the river in the morning,
the water ran as water always will;
and all the bells were ringing, ringing, ringing,
and all the bells were ringing on the hill.

I walked along the river in the evening,
the ferryman had pulled his boat ashore;
and all the bells were ringing, ringing, ringing,
and all the bells were ringing as before.

I walked along the river in the winter,
the ice had closed, the reeds were standing still;
and all the bells were ringing, ringing, ringing,
and all the bells were ringing on the hill.""",
    """A villanelle is printed on cream paper:
Hold on to nothing that the sea can take.
The tide comes in, the tide goes out again.
What breaks was always waiting there to break.

The gulls are shouting over in our wake;
we count the boats and count the waiting men.
Hold on to nothing that the sea can take.

You leave a lantern for the children's sake;
they ask you how, they never ask you when.
What breaks was always waiting there to break.

The harbor sleeps, the harbor is awake,
a dog is barking in the house of Ben.
Hold on to nothing that the sea can take.

And if the cliff itself begins to shake,
sing what your mother used to sing you then.
Hold on to nothing that the sea can take.
What breaks was always waiting there to break.""",
    """The text on the poster reads: Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, \
merrily, life is but a dream. Row, row, row your boat, gently up the creek. If you see a little mouse, don't forget \
to squeak. Row, row, row your boat, gently to the shore. If you see a lion there, don't forget to roar.""",
    """A nursery wall with a painted rhyme: This is the house that Jack built. This is the malt that lay in the house \
that Jack built. This is the rat that ate the malt that lay in the house that Jack built. This is the cat that killed \
the rat that ate the malt that lay in the house that Jack built. This is the dog that worried the cat that killed the \
rat that ate the malt that lay in the house that Jack built.""",
    """A song sheet. First verse: Snow on the window, snow on the door, snow on the wagon, and we wait for more. \
Chorus: Hey-ho, the wind and the rain, hey-ho, the wind and the rain. Second verse: Salt on the table, salt in the \
bread, salt on the collar of the coat that you said. Chorus: Hey-ho, the wind and the rain, hey-ho, the wind and the \
rain. Third verse: Light in the stable, light in the loft, light on the shoulder of the voice grown soft. Chorus: \
Hey-ho, the wind and the rain, hey-ho, the wind and the rain.""",
    """Handwritten lyrics on a napkin: Baby, come home, come home, come home. The lights are all on and I'm here all \
alone. Baby, come home, come home, come home. The coffee is cold and I'm tired of the phone. A ring from a glass \
has blurred the last line, and a lipstick mark stands in the corner.""",
    """A blackboard with the sentence "I will not talk in class." written five times in chalk by the same child's \
hand: I will not talk in class. I will not talk in class. I will not talk in class. Then the writing gets tired, the \
lines slope downwards, and the last one breaks off after two words. A wet sponge hangs from the frame, and the \
teacher's desk at the left is covered with exercise books and a withered apple.""",
    """An engraved stone with an epitaph in six lines: Here lies the miller, here lies his wife, here lies the end of \
a quarrelsome life. Here lies the dog that they loved more than all, here lies the cat that slept on the wall. \
Moss covers the date.""",
)

DIALOGUE = (
    'A comic panel: the boy shouts "No, no, no, no, no!" while the robot falls down the stairs. His sister answers '
    '"Yes, yes, yes!" from the sofa. Sound effects in red letters fill the background.',
    'The man at the left says "no no no no no no no no", and the speech bubble runs out of the frame. She laughs. '
    "Behind them the cake has already hit the floor, and the dog is on its way.",
    'A manga page with three panels. In the first, a girl runs: "Late, late, late, late!" In the second she trips. In '
    'the third the school bell goes "Ding dong ding dong" and a cat watches from the wall.',
    'A meme with a laughing seal. The caption at the top reads "HA HA HA HA HA HA HA HA HA" and the one at the bottom '
    '"MONDAY". The letters are white with a black outline, in the usual heavy font.',
    'Text on the sign: "SALE SALE SALE SALE SALE". Below it stand shoes in many colors, and a clerk ties a balloon to '
    "the door handle. The street is empty apart from a cyclist.",
    'The parrot\'s bubble says "Hello, hello, hello!" and the pirate\'s says "Quiet, quiet, quiet!" They have said '
    "it in every panel of this strip, as the worn look on the pirate's face tells.",
    'Subtitles at the bottom read "Go, go, go, go, go, go!" as five soldiers leave the helicopter. Dust hides their '
    "boots. The last one holds on to his helmet with one hand.",
    'A child\'s drawing of a train with "choo choo choo choo choo choo" written along the smoke. The wagons are '
    "numbered from one to six, and each has a passenger with a hat.",
    'A wall covered by graffiti. Someone has sprayed "never never never never" in silver, and someone else has '
    'answered "maybe" in pink. A shopping cart lies on its side below.',
    'The old woman whispers "my boy, my boy, my boy" and holds the photograph to her chest. The room is dark, and '
    "only the stove gives light. A clock on the wall shows ten past four.",
)

NAMES = (
    "Ada stands at the window. Ada's hair is tied back with a green ribbon. Behind Ada, a piano with an open lid can "
    "be seen, and Ada's shadow falls on the keys. The photograph on the wall shows Ada as a child.",
    "Mr. Lee and Mr. Lee Jr. shake hands in front of the Lee & Lee bakery. Mr. Lee wears an apron, Mr. Lee Jr. a suit. "
    "The sign above them reads 'Lee & Lee, since 1971'. A third Mr. Lee, on crutches, laughs in the doorway.",
    "New York, New York: a postcard with the skyline of New York at night. The words 'New York' appear in the sky, on "
    "a boat and on the cap of the tourist at the right, who waves a small New York flag.",
    "Nala lies on the rug. Nala is a grey tabby with white paws. Nala's toy mouse is under the chair, and Nala's bowl, "
    "which says 'Nala', is empty. Nala does not look pleased.",
    "Duran Duran fans in Duran Duran shirts wait in front of the Duran Duran bus, which has the words 'Duran Duran' on "
    "both of its sides. Rain is falling.",
    "Mona Lisa, painted as a cat. The cat Mona Lisa has the smile of the Mona Lisa, the hands of the Mona Lisa and the "
    "road behind the Mona Lisa, but whiskers.",
    "Team Red, Team Blue, Team Green and Team Gold line up. Team Red has eight runners, Team Blue has eight runners, "
    "Team Green has seven and Team Gold six. The banner of Team Red has fallen over.",
    "Photo of Bora Bora. The lagoon of Bora Bora lies in the foreground, Mount Otemanu in the middle. A boat named "
    "'Bora Bora Queen' is moored at the pier.",
)

LISTS = (
    "The recipe card lists the following steps:\n1. Beat the eggs.\n2. Add the sugar.\n3. Sift the flour.\n4. Melt the "
    "butter.\n5. Fold it in.\n6. Pour it into the tin.\n7. Bake it for 40 minutes.\n8. Let it cool.\n9. Cut it.\n"
    "10. Serve it with cream.\n11. Hide the rest.\n12. Wash up.",
    "A timetable at a bus stop: 6:05, 6:25, 6:45, 7:05, 7:25, 7:45, 8:05, 8:25, 8:45, 9:05, 9:25, 9:45, 10:05, 10:25, "
    "10:45, 11:05. The glass is cracked in the upper corner and a sticker covers the line for Sundays.",
    "A wall calendar for May. The days 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, "
    "23, 24, 25, 26, 27, 28, 29, 30 and 31 are arranged in five rows; the 14th is circled in red.",
    "A scoreboard with the names of twelve players and their points: Ana 12, Ben 11, Cem 11, Dora 9, Eli 9, Fay 8, "
    "Gus 7, Hana 6, Ira 6, Jo 4, Kai 2, Lou 0. The last line is lit in green.",
    "Infographic in four quadrants. 1. Plan: a person writes on a board. 2. Do: a person lifts a box. 3. Check: a "
    "person looks through a magnifying glass. 4. Act: a person points at a rising line. Arrows join them to a circle.",
    "The label reads: Ingredients: water, sugar, lemon juice, citric acid (E330), ascorbic acid (E300), gum arabic "
    "(E414), pectin (E440), carotene (E160a), natural flavour. Store below 8 degrees.",
    "- a red mug\n- a blue mug\n- a green mug\n- a white mug with a crack\n- a saucer\n- a spoon\nAll of them stand on "
    "one shelf, seen from the front, in even light.",
    "A chess diagram. White: king g1, queen d1, rooks a1 and e1, bishop c1, knights f3 and c3, pawns a2, b2, c4, d4, "
    "f2, g2, h2. Black: king g8, queen d8, rooks a8 and f8, bishops b7 and e7, knight d7.",
    "A page of a phone book with names in three columns. Visible are Smith A., Smith B., Smith C., Smith D., Smith E. "
    "and Smith F., each with an address and a number; the rest is out of focus.",
    "| size | chest | length |\n|------|-------|--------|\n| S | 92 | 68 |\n| M | 98 | 70 |\n| L | 104 | 72 |\n"
    "| XL | 112 | 74 |\nA size chart in two greys, set in a narrow font.",
)

PHRASES = (
    "a lone lighthouse, stormy sea, towering waves, dramatic sky, volumetric light, oil painting, thick brushstrokes, "
    "muted palette, highly detailed, wide shot, melancholy mood",
    "portrait of an elderly fisherman, deep wrinkles, woolen cap, salt and pepper beard, golden hour, shallow depth of "
    "field, 85mm, film grain, natural light, warm tones, looking away",
    "cyberpunk alley, neon signs, rain-soaked street, reflections, a courier on a bike, fog, steam vents, teal and "
    "orange, low angle, cinematic lighting, ultra wide, sharp focus --ar 16:9 --v 6",
    "isometric cottage, mossy roof, tiny garden, white picket fence, soft shadows, pastel colors, clay render, studio "
    "light, 3d, cute, toy-like, plain background",
    "macro photo of frost on a window, fern patterns, cold blue light, high contrast, crisp detail, negative space",
    "art nouveau poster, woman with flowing hair, irises, ornate frame, gold leaf, muted greens, flat color, elegant "
    "lines, alphonse mucha style",
    "red apple, red cloth, red wall, red light, monochrome still life, soft focus, minimal, studio shot, high key",
    "blue hour, blue mountains, blue mist, blue lake, lone canoe, reflection, calm, wide angle, long exposure",
)

QUOTED = (
    'A Japanese street sign with the characters "止まれ" in white on a red triangle. Below it a bicycle leans against '
    "a vending machine with six rows of bottles.",
    'The shop window says "ПРОДУКТЫ 24 ЧАСА" in faded letters. A cat sleeps between the cans. The frame of the door is '
    "painted light blue.",
    "A café on the Île de la Cité in Paris. The waiter carries crème brûlée and a naïve painting of the Seine hangs "
    "above the bar. The menu lists 'œufs à la neige'.",
    "Grafitti in Greek, “ΕΛΕΥΘΕΡΙΑ”, on a marble wall. The letters are blue. An olive tree stands at the right, and "
    "the light is that of noon.",
    'A scroll with four large characters, "山水有情", and a red seal. The paper has yellowed. It hangs from a bamboo '
    "rod on a white wall.",
    "A jar of Žižkov honey beside a plate of Gözleme and a glass of Żubrówka. The tablecloth is checked.",
)

REFUSALS = (
    "I'm sorry, but I can't help with that request.",
    "I’m sorry, but I can’t assist with that.",
    "I cannot provide a description of this image as it may contain explicit content.",
    "I can't help you with that.",
    "I'm not able to describe people in images. Is there anything else I can help you with?",
    "I am unable to generate tags for this image.",
    "As an AI language model, I cannot view images.",
    "As an AI assistant, I don't have the ability to see pictures, but I can help you describe one.",
    "I apologize, but I cannot fulfill this request.",
    "I won't create content that depicts minors in that way.",
    "I must decline to caption this picture.",
    "I must respectfully decline this request.",
    "Sorry, I can't do that.",
    "Sorry, but I cannot identify the person in this image.",
    "Unfortunately, I can't provide a caption for this image.",
    "I can not create explicit content.",
    "I'm an AI language model and cannot process images.",
    "I am just an AI model, I do not have personal opinions about art.",
    "I’m really sorry, but I’m unable to help with this.",
    "My apologies, but I can't comply with this request.",
    "I don't feel comfortable writing this description.",
    "I cannot continue this conversation.",
    "There is no image provided. Please upload an image so that I can describe it.",
    "No image was provided.",
    "I'm sorry, I cannot analyze this picture.",
    "I cannot see the image you are talking about.",
    "I will not engage with this kind of content.",
    "I can’t discuss that topic. Let's talk about something else.",
    "I am not able to recognize real people from their faces.",
    "I'm very sorry, but as a safe assistant I cannot produce such text.",
)

FOREIGN = (
    "The image shows a woman in a red dress. 她站在一个大房间里，手里拿着一本书，背景是窗户和花园。",
    "A wooden boat on the shore и рыбак стоит рядом с лодкой, держа в руках сеть и глядя на море.",
    "这张图片显示了一只橙色的猫躺在沙发上，旁边有一盆绿色的植物。",
    "На изображении показана молодая женщина с рыжими волосами, сидящая за столиком кафе.",
    "A cat sleeps on a sofa. ภาพนี้แสดงแมวสีส้มนอนอยู่บนโซฟาในห้องนั่งเล่น",
    "1girl, solo, 長い髪, 青い目, 笑顔, 学校の制服, 屋外, 桜の花びら, 空",
    "この画像は、夜の市場を描いたものです。提灯が並び、人々が歩いています。",
    "이 이미지는 바닷가에 있는 작은 배를 보여줍니다. 하늘은 흐립니다.",
    "تظهر الصورة رجلا يجلس على كرسي خشبي أمام منزل قديم.",
    "Η εικόνα δείχνει ένα μικρό λευκό σπίτι δίπλα στη θάλασσα με μπλε πόρτα.",
    "यह चित्र एक छोटे गाँव को दिखाता है जहाँ बच्चे खेल रहे हैं।",
    "A portrait of a soldier in uniform, солдат смотрит прямо в камеру, на груди медали.",
)
