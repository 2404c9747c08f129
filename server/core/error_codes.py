"""Every `code` an error of the API may have: its status and its meaning. `docs/errors.md` is generated from this table.

Names are OpenAI's where it has one; the others follow its style. Errors of images and videos are raised with `media` in
place of `image` or `video` (`server/media/errors.py`).
"""

CODES: dict[str, tuple[int, str]] = {
    # The request
    "invalid_api_key": (401, "There is no API key in the request, or it is not valid."),
    "unknown_url": (404, "There is no such route."),
    "method_not_allowed": (405, "The route exists, but not with this method; `Allow` has its methods."),
    "cors_refused": (400, "The page's origin is not one of the origins this server allows."),
    "body_too_large": (413, "The request body exceeds the limit; upload large files instead."),
    "invalid_content_type": (400, "The content type of the request body is not supported."),
    "invalid_content_encoding": (400, "The request body is compressed, which is not supported."),
    "head_too_large": (431, "Request line, header fields and trailers exceed a limit."),
    "request_timeout": (408, "The head or the body of the request did not arrive in time."),
    "invalid_http": (400, "The request is not valid HTTP/1.1, or has too many pipelined requests before it."),
    "invalid_request": (400, "The request is rejected by the HTTP framework."),
    "too_many_connections": (503, "The server has as many connections as allowed; `Retry-After` says when to retry."),
    "invalid_json": (400, "The request body is not a JSON object."),
    "invalid_form": (400, "The request body is not a valid multipart form."),
    "unknown_parameter": (400, "The field does not exist."),
    "missing_required_parameter": (400, "The field is required."),
    "unsupported_parameter": (400, "The field exists in the API, but this server does not support it."),
    "unsupported_value": (400, "This server does not support the field's value."),
    "invalid_type": (400, "The field's value has the wrong JSON type."),
    "invalid_value": (400, "The field's value is out of range, or cannot be combined with another field."),
    "string_above_max_length": (400, "The field's value is too long."),
    "model_not_found": (404, "There is no such model; the message has the models there are."),
    "context_length_exceeded": (400, "Prompt and answer do not fit into the model's context."),
    "schema_too_large": (400, "The JSON Schema, the tools or another grammar are too long."),
    "schema_too_deep": (400, "The JSON Schema is nested too deeply."),
    "unsupported_grammar": (400, "The output format cannot be enforced."),
    "rate_limit_exceeded": (429, "Too many requests, or too much work; `Retry-After` says when to retry."),
    # Images
    "empty_image_file": (400, "The image has no bytes."),
    "failed_to_download_image": (400, "The image's URL could not be fetched."),
    "image_file_not_found": (404, "The uploaded image has been deleted."),
    "image_file_too_large": (400, "The encoded image exceeds the limit in bytes."),
    "image_parse_error": (400, "The image is truncated, corrupt or too complex to decode."),
    "image_too_large": (400, "The image has more pixels than may be decoded, or decoding it needs too much memory."),
    "invalid_base64_image": (400, "The image's `data:` URL is not valid base64."),
    "invalid_image_aspect_ratio": (400, "One side of the image is more than 200 times as long as the other."),
    "invalid_image_format": (400, "The file is not an image in a supported format."),
    "invalid_image_mode": (400, "The image's color mode is not supported."),
    "invalid_image_url": (400, "The image's URL is malformed, or this server may not fetch it."),
    # Videos
    "empty_video_file": (400, "The video has no bytes."),
    "failed_to_download_video": (400, "The video's URL could not be fetched."),
    "invalid_base64_video": (400, "The video's `data:` URL is not valid base64."),
    "invalid_video_aspect_ratio": (400, "One side of the video is more than 200 times as long as the other."),
    "invalid_video_format": (400, "The file is not a video in a supported container, or has no video stream."),
    "invalid_video_frames": (400, "The frames of a list have different sizes."),
    "invalid_video_mode": (400, "The video's pixel format is not supported."),
    "invalid_video_url": (400, "The video's URL is malformed, or this server may not fetch it."),
    "unsupported_video_codec": (400, "The video's codec is not supported."),
    "video_file_not_found": (404, "The uploaded video has been deleted."),
    "video_file_too_large": (400, "The encoded video, or its list of frames, exceeds the limit in bytes."),
    "video_parse_error": (400, "The video is truncated, corrupt or too complex to decode."),
    "video_too_large": (400, "The video's frames have more pixels than may be decoded, or need too much memory."),
    "video_too_long": (400, "The video exceeds the limit in seconds or frames."),
    # Both
    "unsupported_file": (400, "The file's content is neither an image nor a video in a supported format."),
    "request_limit_exceeded": (400, "All images and videos of the request together exceed a limit."),
    "media_deadline_exceeded": (504, "Fetching or decoding an image or video took too long; do not retry at once."),
    # Uploaded files
    "empty_file": (400, "The uploaded file has no bytes."),
    "file_not_found": (404, "There is no uploaded file of this id, for this API key."),
    "file_too_large": (413, "The uploaded file exceeds the limit in bytes."),
    "file_quota_exceeded": (413, "The files of this API key, or of all keys, exceed a limit."),
    "files_unavailable": (
        503,
        "Another server uses the directory of uploaded files, or the store of several servers does not answer.",
    ),
    "state_unavailable": (
        503,
        "What several servers share (limits, files) does not answer; `Retry-After` says when to retry.",
    ),
    "storage_full": (507, "The disk for uploaded files is full."),
    "storage_unavailable": (507, "The server cannot write uploaded files."),
    # What is remembered
    "previous_response_not_found": (400, "No response of this id is kept (any more), for this API key."),
    "response_not_found": (404, "No response of this id is kept (any more), for this API key."),
    "conversation_not_found": (404, "No conversation of this id is kept (any more), for this API key."),
    "conversation_too_large": (413, "The conversation exceeds what is kept of one API key."),
    "item_not_found": (404, "No item of this id is kept (any more), for this API key."),
    # The server
    "engine_unavailable": (503, "The model is loading or being restarted; `Retry-After` says when to retry."),
}
"""Status and meaning by code."""
