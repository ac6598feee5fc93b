# docker build -t maml_rl . && docker run --rm -v "$PWD/runs:/home/runs" maml_rl
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libegl1 libgl1-mesa-dri && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN pip install --no-cache-dir /source && rm -r /source
WORKDIR /home
ENTRYPOINT ["maml-rl"]
# the first command of README.md
CMD ["train", "--env", "HalfCheetahVel", "--preset", "fast"]
