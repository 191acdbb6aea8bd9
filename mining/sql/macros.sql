-- Questions that are asked daily, as conditions over a row. The first argument is the view, or its alias:
-- `FROM mined WHERE at_night(mined)`, `FROM mined AS m WHERE has_class(m, 'animal')`. DuckDB reads only the columns that
-- the macro names. Where such a column is NULL the answer is NULL, so WHERE leaves the row out, with NOT before it too.

-- Was it dark? See `is_night` in scores. For mined and scores.
CREATE OR REPLACE MACRO at_night(frame) AS frame.is_night;

-- Does any member of the committee see this fleet class at its threshold? For mined and scores.
CREATE OR REPLACE MACRO has_class(frame, class_name) AS list_contains(string_split(frame.classes, ','), class_name);

-- Metres between two places on the sphere of mean radius (haversine formula); 0.5 % off the ellipsoid at most.
CREATE OR REPLACE MACRO distance_m(latitude_1, longitude_1, latitude_2, longitude_2) AS
    -- least() passes over NULL: an unknown place would lie half around the world, and not be unknown.
    CASE WHEN latitude_1 + longitude_1 + latitude_2 + longitude_2 IS NOT NULL THEN 2 * 6371008.8 * asin(sqrt(least(1.0,
        pow(sin(radians(latitude_2 - latitude_1) / 2), 2)
        + cos(radians(latitude_1)) * cos(radians(latitude_2)) * pow(sin(radians(longitude_2 - longitude_1) / 2), 2)
    ))) END;

-- Was it taken within `metres` of a place? The first condition lets DuckDB pass over files that lie elsewhere. For mined
-- and frames.
CREATE OR REPLACE MACRO near(frame, latitude, longitude, metres) AS
    frame.latitude_deg BETWEEN latitude - degrees(metres / 6371008.8) AND latitude + degrees(metres / 6371008.8)
    AND distance_m(frame.latitude_deg, frame.longitude_deg, latitude, longitude) <= metres;

-- Name of the cell of a grid of about `metres` that holds the frame: rows of equal height, cut into cells of equal width.
-- For mined and frames; as `by` of a quota it caps the frames of one place.
CREATE OR REPLACE MACRO geo_cell(frame, metres) AS
    floor(frame.latitude_deg / degrees(metres / 6371008.8))::BIGINT || ' ' || floor(
        frame.longitude_deg
        * cos(radians((floor(frame.latitude_deg / degrees(metres / 6371008.8)) + 0.5) * degrees(metres / 6371008.8)))
        / degrees(metres / 6371008.8)
    )::BIGINT;
