from thor.stores import schema
from thor.stores.redis import connect
def test_x(dsn, redis_url):
    with schema.connect(dsn) as c:
        print(c.execute("select * from schema_migrations").fetchall(), c.execute("select datcollate,datctype,datlocale,datlocprovider from pg_database where datname=current_database()").fetchall())
    assert connect(redis_url).ping()
