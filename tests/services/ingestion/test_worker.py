"""Documents on their way from the API into answers, through the real gateway and real workers."""

HANDBOOK = b"# Leave\n\nEverybody gets 25 days of paid leave.\n\n# Badges\n\nWear your badge at all times.\n"


async def test_an_uploaded_document_is_found(pipeline):
    await pipeline.upload("handbook.md", HANDBOOK)
    with pipeline.working():
        documents = await pipeline.settled()
    assert documents["handbook.md"]["status"] == "Ready"
    [match] = await pipeline.query("how many days of leave")
    assert match["source"] == "handbook.md"
    assert match["text"] == HANDBOOK.decode()[match["span"]["start"] : match["span"]["end"]]
