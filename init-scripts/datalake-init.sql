-- The datalake: Alluvium creates its tables here. Runs once, as the owner of datalake_db, on a new server.
CREATE SCHEMA cdc_raw;
CREATE SCHEMA cdc_processed;
COMMENT ON SCHEMA cdc_raw IS 'every change, as it came: append only';
COMMENT ON SCHEMA cdc_processed IS 'the tables of the source as they are now';
