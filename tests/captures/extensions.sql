CREATE EXTENSION postgis; CREATE EXTENSION vector; CREATE EXTENSION isn; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION hstore; CREATE EXTENSION cube; CREATE EXTENSION seg;
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN shape AS geometry(Geometry, 4326);
CREATE DOMAIN embedding AS vector(3);
CREATE DOMAIN book AS isbn; CREATE DOMAIN email AS citext CHECK (VALUE LIKE '%@%'); CREATE DOMAIN branch AS ltree;
CREATE DOMAIN pair_d AS pair; CREATE DOMAIN price AS numeric(12,2); CREATE DOMAIN name40 AS varchar(40); CREATE DOMAIN day AS date;
CREATE DOMAIN price2 AS price; CREATE DOMAIN ints AS int[]; CREATE DOMAIN doc AS jsonb; CREATE DOMAIN span AS int4range; CREATE DOMAIN addr AS inet; CREATE DOMAIN uid AS uuid; CREATE DOMAIN moment AS timestamptz; CREATE DOMAIN kv AS hstore;
CREATE TABLE public.shapes (id int PRIMARY KEY, note text, g geometry, gp geometry(Point, 4326), gz geometry(PointZ, 3857), gm geometry(LineStringM), gzm geometry(PolygonZM, 4326),
  geog geography, geogp geography(Point, 4326), gd shape, ga geometry[], b2 box2d, b3 box3d);
CREATE TABLE public.vectors (id int PRIMARY KEY, note text, v vector(3), v_free vector, h halfvec(3), s sparsevec(5), va vector[], vd embedding);
CREATE TABLE public.extras (id int PRIMARY KEY, note text, i isbn, i13 isbn13, sn issn, sn13 issn13, mn ismn, mn13 ismn13, e13 ean13, up upc,
  comp pair, comp_d pair_d, comp_a pair[], bk book, em email, br branch, pr price, pr2 price2, nm name40, dy day, ia ints, dc doc, sp span, ad addr, ui uid, mo moment, kv kv,
  i_a isbn[], ct_a citext[], lt_a ltree[], pr_a price[], lq lquery, ltq ltxtquery, cu cube, sg seg, lsn pg_lsn, jp jsonpath, x xid, x8 xid8, sn_ pg_snapshot, rc regclass, tq tsquery);

-- B is 0 in the snapshot and 1000 behind it.
INSERT INTO public.shapes SELECT id + B, note, g, CASE WHEN GeometryType(g)='POINT' AND NOT ST_IsEmpty(g) AND ST_NDims(g)=2 THEN ST_SetSRID(g,4326) END, NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL FROM (VALUES
 (1,'point','POINT(1.5 -2)'::geometry),(2,'point srid','SRID=4326;POINT(13.4 52.5)'),(3,'line','SRID=3857;LINESTRING(0 0,1 1,2.1 3)'),
 (4,'polygon hole','SRID=4326;POLYGON((0 0,10 0,10 10,0 10,0 0),(1 1,2 1,2 2,1 1))'),(5,'multipoint','MULTIPOINT((1 1),(2 2))'),(6,'multiline','SRID=4326;MULTILINESTRING((0 0,1 1),(2 2,3 3))'),
 (7,'multipoly','SRID=4326;MULTIPOLYGON(((0 0,1 0,1 1,0 0)),((5 5,6 5,6 6,5 5)))'),(8,'collection','SRID=4326;GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1 1))'),
 (9,'pz','SRID=4326;POINT Z (1 2 3)'),(10,'pm','SRID=4326;POINT M (1 2 3)'),(11,'pzm','SRID=4326;POINT ZM (1 2 3 4)'),(12,'null',NULL),
 (13,'empty point','POINT EMPTY'),(14,'empty point srid','SRID=4326;POINT EMPTY'),(15,'empty coll','GEOMETRYCOLLECTION EMPTY'),(16,'empty polygon','SRID=3857;POLYGON EMPTY'),
 (17,'circularstring','SRID=4326;CIRCULARSTRING(0 0,1 1,2 0)'),(18,'curvepolygon','CURVEPOLYGON(CIRCULARSTRING(0 0,4 0,4 4,0 4,0 0))'),(19,'tin','SRID=4326;TIN Z (((0 0 0,0 0 1,0 1 0,0 0 0)))'),
 (20,'polyhedral','POLYHEDRALSURFACE Z (((0 0 0,0 0 1,0 1 1,0 1 0,0 0 0)))'),(21,'triangle','TRIANGLE((0 0,0 9,9 0,0 0))'),(22,'multicurve','MULTICURVE((0 0,5 5),CIRCULARSTRING(4 0,4 4,8 4))'),(23,'nan',ST_MakePoint('NaN','Infinity')),(24,'custom srid','SRID=999000;POINT(1 1)'),(25,'empty z','SRID=4326;POINT Z EMPTY'),(26,'coll of empties','SRID=4326;GEOMETRYCOLLECTION(POINT EMPTY,LINESTRING EMPTY)')
 ) v(id,note,g);
UPDATE public.shapes SET gz='SRID=3857;POINT Z (1 2 3)', gm='LINESTRING M (0 0 1,1 1 2)', gzm='SRID=4326;POLYGON ZM((0 0 1 2,1 0 1 2,1 1 1 2,0 0 1 2))', geog='POLYGON((0 0,10 0,10 10,0 0))', geogp='POINT(13.4 52.5)', gd='SRID=4326;POINT(7 7)', ga=ARRAY['POINT(1 1)'::geometry,NULL], b2='BOX(0 0,1 1)', b3='BOX3D(0 0 0,1 1 1)' WHERE id = B + 1;
UPDATE public.shapes SET geog='SRID=4267;POINT(1 2)', geogp='POINT EMPTY' WHERE id = B + 2;
UPDATE public.shapes SET geog='MULTIPOINT Z ((1 2 3),(4 5 6))' WHERE id = B + 3;
UPDATE public.shapes SET geog='GEOMETRYCOLLECTION(POINT(1 2))' WHERE id = B + 4;
INSERT INTO public.shapes (id, note, g, geog) SELECT B + 30, 'big', ST_SetSRID(ST_MakeLine(array_agg(ST_MakePoint(sin(i*1.1)*90, cos(i*1.7)*80))), 4326), ST_SetSRID(ST_MakeLine(array_agg(ST_MakePoint(sin(i*1.1)*90, cos(i*1.7)*80))), 4326)::geography FROM generate_series(1,400) i;
INSERT INTO public.vectors VALUES (B+1,'plain','[1,2.5,-3]','[0.1,0.2]','[1,2.5,-0.3]','{1:1.5,3:-2}/5',ARRAY['[1,2]'::vector,NULL],'[1,2,3]'),(B+2,'null',NULL,NULL,NULL,NULL,NULL,NULL),(B+3,'extremes','[3.4028235e38,-1e-45,0]','[1.17549435e-38]','[65504,-6e-8,0]','{}/5','{}','[0.1,0.2,0.3]'),(B+4,'neg zero','[-0,0,16777217]','[0.3333333333]','[-0,0.333,2049]','{5:0.1}/5',NULL,NULL);
INSERT INTO public.vectors (id, note, v_free, s) SELECT B + 30, 'big', (SELECT array_agg(sin(i)::real) FROM generate_series(1,1536) i)::vector, NULL;
INSERT INTO public.extras VALUES (B+1,'plain','0-393-04002-X','978-0-393-04002-9','1436-4522','977-1436-45200-8','M-2306-7118-7','979-0-2306-7118-7','978-0-393-04002-9','220356483481',
 ROW(1,'x "y"'),ROW(2,NULL),ARRAY[ROW(1,'a')::pair,NULL],'0-393-04002-X','A@b.c','Top.Science',12.50,-0.01,'n','2024-02-29','{1,NULL,3}','{"a": 1.50}','[1,10)','192.168.0.1/24','a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11','2024-02-29 23:59:59.999999+05:30','a=>1,b=>NULL',
 ARRAY['0-393-04002-X'::isbn,NULL],'{Ab,NULL}','{Top.A,NULL}','{1.50,NULL}','*.Astro*','Europe & Russia*','(1,2),(3,4)','1.5 .. 2','16/B374D848','$.a[*]','123','5000000000','10:20:10,14','pg_class','fat & rat'); INSERT INTO public.extras (id, note) VALUES (B+2,'null');
INSERT INTO public.extras (id, note, i, i13, e13, up, sn) VALUES (B+3,'long isbn', '978-0-393-04002-9', '0-393-04002-X', '4006381333931', '012345678905', '0317-8471');
UPDATE public.extras SET note = 'weak' WHERE id = B + 3;
-- Behind them, B is 1000.
UPDATE public.shapes SET note = 'moved' WHERE id = B + 30;
UPDATE public.vectors SET note = 'moved' WHERE id = B + 30;
UPDATE public.shapes SET g = 'SRID=4326;POINT(9 9)' WHERE id = B + 1;
DELETE FROM public.shapes WHERE id = B + 5;
