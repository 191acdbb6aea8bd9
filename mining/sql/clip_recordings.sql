-- The recordings of one drive and camera that reach into a span of time (microseconds since 1970), the earliest first. The
-- first frame of a recording is always a sampled one: its captured_at is where the recording's times start.
SELECT
    r.recording_id, r.uri, r.kind, r.width_px, r.height_px, r.size_bytes, r.modified_ns, r.frame_rate_hz,
    epoch_us(min(f.captured_at)) AS start_us,
    list(f.frame_index ORDER BY f.frame_index) AS sampled_indices,
    list(f.pts_ns ORDER BY f.frame_index) AS sampled_pts_ns
FROM recordings AS r
JOIN frames AS f USING (recording_id, night)
WHERE r.drive_id = $drive_id AND r.camera = $camera
GROUP BY ALL
HAVING epoch_us(min(f.captured_at)) <= $to_us
    AND epoch_us(min(f.captured_at)) + coalesce(r.duration_s, 0) * 1e6 >= $from_us
ORDER BY start_us, r.recording_id
