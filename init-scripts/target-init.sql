-- The target: Alluvium creates the mirror of the source's tables in the schema public.
-- Runs once, as the owner of target_db, on a new server.
COMMENT ON SCHEMA public IS 'a mirror of the source, written by Alluvium';
