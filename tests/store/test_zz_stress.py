import asyncio, pytest, random
from tests.support.store import *
from tests.support.tasks import NOW
from taskwire.core.tasks import Report
pytestmark = pytest.mark.anyio
@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_it(backend):
    names=[f"t{n:04}" for n in range(400)]
    async with open_store(backend.url, timeout=30) as one, open_store(backend.url) as two:
        rnd=random.Random(1); sh=names[:]; rnd.shuffle(sh)
        for n in range(0,400,50):
            await one.writer.submit_many([one.create(x, provider="render") for x in sh[n:n+50]])
        await one.reader.claim(["render"], "n1", now=NOW, until=NOW+5, limit=999)
        done=asyncio.Event()
        async def report():
            for t in range(60):
                await one.writer.submit_many([one.report(x, Report(message=f"{t}")) for x in names])
            done.set()
        errors=[]
        async def renew():
            while not done.is_set():
                try: await two.reader.renew(names, "n1", until=NOW+15000)
                except Exception as e: errors.append(e)
        await asyncio.gather(report(), renew(), renew())
        print("failures", one.writer.stats.failures, len(errors), errors[:1])
